package prom

// Type says how the values of a family move.
type Type string

// The types.
const (
	Counter Type = "counter" // only up, from 0 at the start of the program
	Gauge   Type = "gauge"   // up and down
)

// Family is one metric with all its samples.
type Family struct {
	Name    string // [a-zA-Z_:][a-zA-Z0-9_:]*
	Help    string
	Type    Type
	Samples []Sample // with different labels each; none: the family is left out
}

// Sample is one value of a family.
type Sample struct {
	Labels []Label
	Value  float64
}

// Label tells samples of a family apart.
type Label struct {
	Name  string // [a-zA-Z_][a-zA-Z0-9_]*, without two underscores in front
	Value string
}

// Of makes a sample out of a value and pairs of label name and label value. An odd one out is no label.
func Of(value float64, pairs ...string) Sample {
	s := Sample{Value: value}
	for i := 1; i < len(pairs); i += 2 {
		s.Labels = append(s.Labels, Label{pairs[i-1], pairs[i]})
	}
	return s
}
