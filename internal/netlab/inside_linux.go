package netlab

import (
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Inside runs fn as a program of the host would run: in its network namespace and with the files that are its own.
// Those are /etc (the machine's, but changes stay with the host), /run (empty at first) and /sys (which shows the
// host's interfaces), so that programs of several hosts may each rewrite resolv.conf and listen on the default
// socket. All other paths are the machine's.
//
// fn runs on another goroutine, with a thread of its own: it must not end the test.
func (h *Host) Inside(fn func() error) error {
	done := make(chan error, 1)
	h.spawn(func(err error) {
		if err == nil {
			err = fn()
		}
		done <- err
	})
	return <-done
}

// spawn runs fn on a thread inside the host's namespaces, which dies with it, or tells fn why it could not.
func (h *Host) spawn(fn func(error)) {
	mnt, err := h.mounts()
	throwaway(func() {
		if err == nil {
			err = h.enter(mnt)
		}
		fn(err)
	})
}

func (h *Host) enter(mnt int) error {
	if err := netns.Set(h.ns); err != nil {
		return fmt.Errorf("enter %s: %w", h.name, err)
	}
	// A thread can change its mounts only when its root and working directory are its own.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("enter mounts of %s: %w", h.name, err)
	}
	if err := unix.Setns(mnt, unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter mounts of %s: %w", h.name, err)
	}
	return nil
}

// throwaway runs fn on a thread that ends with it, for changes to a thread that cannot be taken back. The process's
// first thread is passed over: it cannot end, and it is what /proc/self shows.
func throwaway(fn func()) {
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			fn()
			return
		}
		passed := make(chan struct{})
		throwaway(func() {
			close(passed)
			fn()
		})
		<-passed
		runtime.UnlockOSThread()
	}()
}

// mounts is the host's mount namespace, made when it is first wanted.
func (h *Host) mounts() (int, error) {
	h.mntOnce.Do(func() {
		made := make(chan struct{})
		throwaway(func() {
			defer close(made)
			h.mnt, h.mntErr = h.makeMounts()
		})
		<-made
	})
	return h.mnt, h.mntErr
}

func (h *Host) makeMounts() (int, error) {
	if err := netns.Set(h.ns); err != nil { // sysfs shows the namespace it was mounted in
		return -1, err
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return -1, fmt.Errorf("new mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return -1, fmt.Errorf("make mounts private: %w", err)
	}
	if err := mountOwn(); err != nil {
		return -1, err
	}
	return unix.Open(fmt.Sprintf("/proc/%d/task/%d/ns/mnt", unix.Getpid(), unix.Gettid()),
		unix.O_RDONLY|unix.O_CLOEXEC, 0)
}

// mountOwn mounts what a host has for itself. The writable half of /etc lies hidden in its /run.
func mountOwn() error {
	const upper, work = "/run/.netlab/upper", "/run/.netlab/work"
	if err := unix.Mount("netlab", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	for _, dir := range []string{upper, work} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	overlay := "lowerdir=/etc,upperdir=" + upper + ",workdir=" + work
	if err := unix.Mount("netlab", "/etc", "overlay", 0, overlay); err != nil {
		return fmt.Errorf("mount /etc: %w", err)
	}
	if err := unix.Mount("netlab", "/sys", "sysfs", 0, ""); err != nil {
		return fmt.Errorf("mount /sys: %w", err)
	}
	return nil
}
