// Package bucket limits rates without a clock of its own: a token bucket, and one bucket per address prefix with a
// bound on how many it remembers. Owned by whoever calls it; not safe for concurrent use.
package bucket
