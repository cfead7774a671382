package meshnet

import "math/rand/v2"

// Two short words name a network that its founder did not name.
var (
	qualities = [...]string{
		"amber", "bold", "brisk", "calm", "clear", "coral", "crisp", "eager", "early", "fleet", "fond", "gentle",
		"glad", "green", "happy", "keen", "kind", "light", "lively", "lucky", "mellow", "merry", "mild", "noble",
		"quick", "quiet", "rapid", "ready", "silver", "snug", "solid", "spry", "steady", "still", "sunny", "swift",
		"tidy", "vivid", "warm", "wise",
	}
	things = [...]string{
		"anchor", "basin", "beacon", "birch", "bridge", "brook", "cedar", "cliff", "cove", "delta", "ember", "falcon",
		"fern", "field", "finch", "fjord", "forest", "garden", "glade", "harbor", "hazel", "heron", "island", "lagoon",
		"lantern", "maple", "meadow", "orchard", "otter", "pebble", "pine", "river", "robin", "sparrow", "spring",
		"summit", "thicket", "valley", "willow", "wren",
	}
)

func randomName() string {
	return qualities[rand.IntN(len(qualities))] + "-" + things[rand.IntN(len(things))]
}
