package lists

import "time"

const (
	sayAgain  = time.Hour // until the same failure is told again
	perSource = 32        // failures of entries that are told in that time, of each source but the user's entries
)

// telling says how a failure goes to Config.OnFailed.
type telling int

const (
	loud    telling = iota // each
	counted                // as many as an hour has room for
	quiet                  // not at all
)

// failures says which failures are news. Owned by a loop.
type failures struct {
	said  map[resultKey]saying
	since time.Time // since when told counts
	told  map[string]int
}

type saying struct {
	reason string
	at     time.Time
}

// news reports whether a failure is to be told: it is another one than last time, or an hour has passed. bounded: it
// counts against what is told of its source in an hour.
func (f *failures) news(now time.Time, key resultKey, reason string, bounded bool) bool {
	if now.Sub(f.since) >= sayAgain || f.said == nil {
		f.since, f.told = now, make(map[string]int)
		f.forget(now)
	}
	if s, ok := f.said[key]; ok && s.reason == reason && now.Sub(s.at) < sayAgain {
		return false
	}
	if bounded {
		if f.told[key.source] >= perSource {
			return false
		}
		f.told[key.source]++
	}
	f.said[key] = saying{reason, now}
	return true
}

// forget drops what would be told again anyway.
func (f *failures) forget(now time.Time) {
	said := make(map[resultKey]saying)
	for k, s := range f.said {
		if now.Sub(s.at) < sayAgain {
			said[k] = s
		}
	}
	f.said = said
}

// over notes that there is no failure any more.
func (f *failures) over(key resultKey) { delete(f.said, key) }
