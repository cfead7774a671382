package stream

import "io"

// The buffer of one direction, in bytes. It grows while reads fill it: a netstack's connection costs less by the byte
// the more it is given at a time, and most connections need little.
const (
	leastBuffer = 16 << 10
	mostBuffer  = 256 << 10
)

// Copy copies from src to dst until src ends, and returns the first error but io.EOF. Unlike io.Copy it leaves nothing
// to methods of its arguments, and needs 16 to 256 KiB.
func Copy(dst io.Writer, src io.Reader) error {
	for buf := make([]byte, leastBuffer); ; {
		n, err := src.Read(buf)
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case n == len(buf) && n < mostBuffer:
			buf = make([]byte, 4*n)
		}
	}
}
