// Package safefile keeps files that a crash cannot break: a state folder whose files are replaced whole
// (write, sync, rename, sync of the folder) or grown by checksummed records.
//
//	record: length 4 | CRC-32C 4 | payload       (big endian, the checksum is of the payload)
//
// A log that was cut in the middle of a record is read up to there; the rest is cut off at the next append. A file
// whose content makes no sense is set aside under another name, never overwritten; so is a copy of a log that was
// damaged in its middle. All files are 0600, the folder is 0700.
//
// Read first: dir.go, then log.go.
package safefile
