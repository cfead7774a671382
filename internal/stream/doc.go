// Package stream copies from one connection to another: proxy and tunnel splice with it.
package stream
