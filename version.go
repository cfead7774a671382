package meshnet

// Version of this release.
const Version = "0.1.0"
