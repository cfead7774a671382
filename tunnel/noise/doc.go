// Package noise is WireGuard's handshake as a computation: Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s and the messages it
// travels in (whitepaper https://www.wireguard.com/papers/wireguard.pdf §5.4). It reads no clock, opens no socket,
// starts nothing and remembers nothing between handshakes; when to send what is for its caller.
//
//	initiator                                              responder
//	Static.Remote(key)                                     Static.Remote(key)
//	Static.Initiate ──── 1 initiation, 148 bytes ────────► Static.Open      who is it, and when?
//	      │                                                     │           the caller: newer than the last one?
//	Initiation.Finish ◄─ 2 response, 92 bytes ───────────  Received.Respond
//	      │                                                     │
//	    Keys ◄═══════════ 4 data, 16 + n + 16 bytes ═════════► Keys
//
//	Remote.OpenCookie ◄─ 3 cookie reply, 64 bytes ───────  Checker.Reply    instead of 2, under load
//
// All numbers are little endian; the three bytes after the type are zero.
//
//	1 initiation     type(1) 0(3) sender(4) ephemeral(32) box of static(48) box of timestamp(28) mac1(16) mac2(16)
//	2 response       type(1) 0(3) sender(4) receiver(4) ephemeral(32) box of nothing(16) mac1(16) mac2(16)
//	3 cookie reply   type(1) 0(3) receiver(4) nonce(24) box of cookie(32)
//	4 data           type(1) 0(3) receiver(4) counter(8) box of packet(n+16)
//
// mac1 is checked wherever a message is read, before anything costly; mac2 only by Checker.CheckMAC2, which a caller
// under load asks before it opens a message, and replies when the answer is no.
//
// The API:
//
//	TypeInitiation, TypeResponse, TypeCookieReply, TypeData = 1, 2, 3, 4
//	InitiationSize, ResponseSize, CookieReplySize, DataHeaderSize, TagSize = 148, 92, 64, 16, 16
//	CookieLifetime = 120 s
//	ErrMalformed, ErrMAC, ErrUnknown, ErrAuth, ErrSpent; identity.ErrBadKey
//
//	TypeOf(msg []byte) byte                                    0: none of ours
//	SenderIndex(msg []byte) (uint32, bool)                     of 1 and 2
//	ReceiverIndex(msg []byte) (uint32, bool)                   of 2, 3 and 4
//	MAC1(msg []byte) [16]byte                                  of 1 and 2
//	PutDataHeader(dst []byte, receiver uint32, counter uint64)
//	Counter(msg []byte) uint64
//	Nonce(counter uint64) [12]byte
//
//	NewStatic(private identity.Secret) (*Static, error)
//	(*Static) Public() identity.WGKey
//	(*Static) Remote(key identity.WGKey) (*Remote, error)
//	(*Static) CheckMAC1(msg []byte) bool
//	(*Static) Initiate(r *Remote, index uint32, timestamp [12]byte, cookie *Cookie, msg *[148]byte) (*Initiation, error)
//	(*Static) Open(msg []byte, remote func(identity.WGKey) *Remote) (*Received, error)
//	(*Static) Wipe()
//
//	(*Remote) Key() identity.WGKey
//	(*Remote) OpenCookie(reply []byte, mac1 [16]byte) (Cookie, error)
//	(*Remote) Wipe()
//
//	(*Initiation) Index() uint32
//	(*Initiation) MAC1() [16]byte
//	(*Initiation) Finish(response []byte, psks []identity.Secret) (keys Keys, psk int, err error)
//	(*Initiation) Wipe()
//
//	Received{Remote identity.WGKey; Timestamp [12]byte; Sender uint32}
//	(*Received) Respond(index uint32, psk identity.Secret, cookie *Cookie, msg *[92]byte) (Keys, error)
//	(*Received) Wipe()
//
//	Keys{Send, Receive identity.Secret}
//	(*Keys) Wipe()
//
//	NewChecker(s *Static) *Checker
//	(*Checker) CheckMAC2(now time.Time, msg, source []byte) bool
//	(*Checker) Reply(now time.Time, msg, source []byte, out *[64]byte) error
//	(*Checker) Wipe()
//
// Secrets are compared in constant time, hide themselves when printed, and are wiped as soon as they are used up: the
// chaining key at the end of a handshake, products of keys at once. What crypto/ecdh, the AEAD and the hash keep inside
// is theirs: it is let go of, and left to the garbage collector.
//
// Read first: symmetric.go, then initiator.go and responder.go; static.go, cookie.go; below them hash.go and curve.go.
package noise
