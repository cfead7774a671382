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

// ErrRecordTooLarge is returned for a record above MaxRecord.
var ErrRecordTooLarge = errors.New("record too large")

// Log is a file that grows by records. It is owned by one goroutine.
type Log struct {
	dir  *Dir
	name string
	f    *os.File
	end  int64
}

// OpenLog opens the named log and hands every intact record to each, in order. What follows the last intact record
// (a write that a crash cut short) is cut off; torn tells how many bytes that were. The slice is only valid during
// the call.
func (d *Dir) OpenLog(name string, each func(record []byte) error) (log *Log, torn int64, err error) {
	data, err := d.Read(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, 0, err
	}
	end, err := scan(data, each)
	if err != nil {
		return nil, 0, err
	}
	f, err := os.OpenFile(d.Path(name), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, 0, err
	}
	torn = int64(len(data)) - end
	if torn > 0 {
		err = f.Truncate(end)
	}
	if err == nil {
		_, err = f.Seek(end, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return &Log{dir: d, name: name, f: f, end: end}, torn, nil
}

func scan(data []byte, each func([]byte) error) (int64, error) {
	end := 0
	for len(data)-end >= recordHeader {
		size := int(binary.BigEndian.Uint32(data[end:]))
		sum := binary.BigEndian.Uint32(data[end+4:])
		if size > MaxRecord || size > len(data)-end-recordHeader {
			break
		}
		payload := data[end+recordHeader : end+recordHeader+size]
		if crc32.Checksum(payload, castagnoli) != sum {
			break
		}
		if err := each(payload); err != nil {
			return 0, err
		}
		end += recordHeader + size
	}
	return int64(end), nil
}

// Append adds records with one write and one sync. After an error the log holds what it held before.
func (l *Log) Append(records ...[]byte) error {
	if len(records) == 0 {
		return nil
	}
	var buf []byte
	for _, r := range records {
		if len(r) > MaxRecord {
			return ErrRecordTooLarge
		}
		buf = binary.BigEndian.AppendUint32(buf, uint32(len(r)))
		buf = binary.BigEndian.AppendUint32(buf, crc32.Checksum(r, castagnoli))
		buf = append(buf, r...)
	}
	err := l.dir.fill(l.f, l.name, buf)
	if err != nil {
		_ = l.f.Truncate(l.end)
		_, _ = l.f.Seek(l.end, io.SeekStart)
		return fmt.Errorf("append to %s: %w", l.dir.Path(l.name), err)
	}
	l.end += int64(len(buf))
	return nil
}

// Size is the length of the log in bytes.
func (l *Log) Size() int64 { return l.end }

// Close closes the file.
func (l *Log) Close() error { return l.f.Close() }
