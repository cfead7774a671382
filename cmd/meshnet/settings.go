package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// settle gives flags that the command line leaves open their values from the environment, then from the file. A flag
// that got one counts as given.
func (a *app) settle(cmd *cobra.Command) error {
	if path := a.host.getenv(variable("config")); a.global.config == "" && path != "" {
		a.global.config = path
	}
	file, err := readConfig(a.global.config, knownFlags(cmd.Root()))
	if err != nil {
		return err
	}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if err == nil && !f.Changed && f.Name != "help" && f.Name != "config" {
			err = a.settleFlag(cmd.Flags(), f, file)
		}
	})
	if err != nil {
		return err
	}
	if a.global.logFormat != "text" && a.global.logFormat != "json" {
		return a.bad("log-format", fmt.Errorf("%q is neither text nor json", a.global.logFormat))
	}
	return nil
}

func (a *app) settleFlag(flags *pflag.FlagSet, f *pflag.Flag, file configFile) error {
	if value := a.host.getenv(variable(f.Name)); value != "" {
		a.from[f.Name] = variable(f.Name)
		if err := flags.Set(f.Name, value); err != nil {
			return &failure{variable(f.Name), &usageError{err}}
		}
		return nil
	}
	value, ok := file.values[f.Name]
	if !ok {
		return nil
	}
	a.from[f.Name] = file.where(f.Name)
	if err := setFromFile(flags, f, value); err != nil {
		return &failure{file.where(f.Name), &usageError{err}}
	}
	return nil
}

// bad is a wrong value of a flag; it says where the value came from.
func (a *app) bad(flag string, err error) error {
	if from, ok := a.from[flag]; ok {
		return &failure{from, &usageError{err}}
	}
	return &usageError{fmt.Errorf("--%s: %w", flag, err)}
}

// variable is the environment variable of a flag.
func variable(flag string) string {
	return "MESHNET_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// knownFlags are the names of the flags of all commands: a file may serve several.
func knownFlags(root *cobra.Command) map[string]bool {
	known := map[string]bool{}
	var visit func(*cobra.Command)
	visit = func(cmd *cobra.Command) {
		add := func(f *pflag.Flag) { known[f.Name] = true }
		cmd.Flags().VisitAll(add)
		cmd.PersistentFlags().VisitAll(add)
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	visit(root)
	delete(known, "help")
	delete(known, "config")
	return known
}

// configFile is a file of settings. Immutable.
type configFile struct {
	path   string
	text   string
	values map[string]any
}

// readConfig reads a TOML file whose keys are names of flags. No path: no settings.
func readConfig(path string, known map[string]bool) (configFile, error) {
	c := configFile{path: path}
	if path == "" {
		return c, nil
	}
	what := "read " + path
	data, err := os.ReadFile(path)
	if err != nil {
		if p, ok := errors.AsType[*fs.PathError](err); ok {
			err = p.Err
		}
		return c, &failure{what, &usageError{err}}
	}
	c.text = string(data)
	if _, err := toml.Decode(c.text, &c.values); err != nil {
		if p, ok := errors.AsType[toml.ParseError](err); ok {
			err = fmt.Errorf("line %d: %s", p.Position.Line, p.Message)
		}
		return c, &failure{what, &usageError{err}}
	}
	for _, key := range slices.SortedFunc(maps.Keys(c.values), func(x, y string) int { return c.line(x) - c.line(y) }) {
		if !known[key] {
			return c, &failure{what, usagef("line %d: unknown key %q", c.line(key), key)}
		}
	}
	return c, nil
}

// line is the number of the line that sets key, at the top level or as a table.
func (c configFile) line(key string) int {
	name := regexp.QuoteMeta(key)
	set := regexp.MustCompile(`^\s*(\[+\s*)?["']?` + name + `["']?\s*([=.\]]|$)`)
	n := 0
	for line := range strings.Lines(c.text) {
		n++
		if set.MatchString(strings.TrimRight(line, "\r\n")) {
			return n
		}
	}
	return 1
}

// where names a setting for people.
func (c configFile) where(key string) string {
	return fmt.Sprintf("read %s: line %d: %s", c.path, c.line(key), key)
}

func setFromFile(flags *pflag.FlagSet, f *pflag.Flag, value any) error {
	list, isList := value.([]any)
	slice, takesList := f.Value.(pflag.SliceValue)
	switch {
	case isList && takesList:
		values := make([]string, len(list))
		for i, v := range list {
			text, err := scalar(v)
			if err != nil {
				return err
			}
			values[i] = text
		}
		f.Changed = true
		return slice.Replace(values)
	case isList:
		return errors.New("a list where one value is wanted")
	}
	text, err := scalar(value)
	if err != nil {
		return err
	}
	return flags.Set(f.Name, text)
}

func scalar(value any) (string, error) {
	switch value.(type) {
	case string, int64, float64, bool:
		return fmt.Sprint(value), nil
	}
	return "", errors.New("neither text, a number, true, false nor a list of these")
}
