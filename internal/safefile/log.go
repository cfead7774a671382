package safefile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
)

const (
	recordHeader = 8
	// MaxRecord is the largest payload of a log record, in bytes.
	MaxRecord = 1 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Errors of Append.
var (
	ErrRecordTooLarge = errors.New("record too large")
	ErrRecordEmpty    = errors.New("empty record")
)

// Log is a file that grows by records. It is owned by one goroutine.
type Log struct {
	dir     *Dir
	name    string
	f       *os.File
	end     int64 // behind the last intact record
	torn    bool  // something else follows, until the next append
	damaged bool
}

// OpenLog opens the named log and hands every intact record to each, in order. What follows the last intact record
// (a write that a crash cut short) is cut off by the next Append; torn tells how many bytes that will be. The slice is
// only valid during the call.
func (d *Dir) OpenLog(name string, each func(record []byte) error) (log *Log, torn int64, err error) {
	data, err := d.Read(name)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return nil, 0, err
	}
	end, damaged, err := scan(data, each)
	if err != nil {
		return nil, 0, err
	}
	f, err := os.OpenFile(d.Path(name), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, 0, err
	}
	if missing {
		err = d.syncFolder() // else a crash takes the name, and with it all that was synced
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	torn = int64(len(data)) - end
	return &Log{dir: d, name: name, f: f, end: end, torn: torn > 0, damaged: damaged}, torn, nil
}

// scan finds the end of the intact records, and whether a whole record that is not intact follows: no write that was
// cut short leaves that. A zero length is no record but what some file systems leave of one (blocks of zeros).
func scan(data []byte, each func([]byte) error) (end int64, damaged bool, err error) {
	at := 0
	for len(data)-at >= recordHeader {
		size := int(binary.BigEndian.Uint32(data[at:]))
		sum := binary.BigEndian.Uint32(data[at+4:])
		if size == 0 || size > len(data)-at-recordHeader {
			break
		}
		payload := data[at+recordHeader : at+recordHeader+size]
		if size > MaxRecord || crc32.Checksum(payload, castagnoli) != sum {
			return int64(at), true, nil
		}
		if err := each(payload); err != nil {
			return 0, false, err
		}
		at += recordHeader + size
	}
	return int64(at), false, nil
}

// Damaged reports whether the bytes behind the last intact record are more than a write that was cut short.
func (l *Log) Damaged() bool { return l.damaged }

// Append adds records with one write and one sync. After an error the log holds what it held before.
func (l *Log) Append(records ...[]byte) error {
	if len(records) == 0 {
		return nil
	}
	buf, err := encode(records)
	if err != nil {
		return err
	}
	if err = l.rewind(); err == nil {
		err = l.dir.fill(l.f, l.name, buf)
	}
	if err != nil {
		l.torn = true
		_ = l.rewind() // or before the next append
		return fmt.Errorf("append to %s: %w", l.dir.Path(l.name), err)
	}
	l.end += int64(len(buf))
	return nil
}

func encode(records [][]byte) ([]byte, error) {
	var buf []byte
	for _, r := range records {
		switch {
		case len(r) > MaxRecord:
			return nil, ErrRecordTooLarge
		case len(r) == 0:
			return nil, ErrRecordEmpty
		}
		buf = binary.BigEndian.AppendUint32(buf, uint32(len(r)))
		buf = binary.BigEndian.AppendUint32(buf, crc32.Checksum(r, castagnoli))
		buf = append(buf, r...)
	}
	return buf, nil
}

// rewind cuts off what is torn and goes to the end.
func (l *Log) rewind() error {
	if l.torn {
		if err := l.f.Truncate(l.end); err != nil {
			return err
		}
		l.torn = false
	}
	_, err := l.f.Seek(l.end, io.SeekStart)
	return err
}

// Replace makes the log hold these records only: after a crash it holds either all from before or these. After an
// error of it the log must not be used any more.
func (l *Log) Replace(records ...[]byte) error {
	buf, err := encode(records)
	if err != nil {
		return err
	}
	if err := l.dir.Write(l.name, buf); err != nil {
		return err
	}
	f, err := os.OpenFile(l.dir.Path(l.name), os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	l.f.Close()
	l.f, l.end, l.torn, l.damaged = f, int64(len(buf)), false, false
	return nil
}

// Size is the length of the log in bytes.
func (l *Log) Size() int64 { return l.end }

// Close closes the file.
func (l *Log) Close() error { return l.f.Close() }
