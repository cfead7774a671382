// Package aqm keeps queues from standing: active queue management (RFC 7567) for a program that empties a queue in the
// kernel which it does not own.
//
// It works as CoDel (RFC 8289) does, by the time that packets waited and not by how many there are, but on the mean
// instead of the minimum: a queue that threads fill and empty in turns swings, and touches zero whatever its length.
// A sender that keeps more on its way than the path holds makes such a queue, and only the loss of a packet tells it to
// send slower. One packet is enough, and the next follows only when that one must have had its effect.
package aqm
