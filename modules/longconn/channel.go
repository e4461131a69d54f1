package longconn

import (
	"fmt"
	"math"
	"math/bits"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

const (
	// kept is for how long a host must have been connected to a place for it to
	// be a channel, and sure after how long it is as certain as it gets.
	kept, sure = 30 * int64(time.Minute), 2 * int64(time.Hour)
	// rest is the longest pause between two connections of a channel. Remote
	// control that was cut off comes back within seconds, or when the network is
	// there again.
	rest = 10 * int64(time.Minute)
	// idle is how many bytes a second each side sends at most, for a channel
	// that waits: keep-alives, and a few orders.
	idle = 100
	// maxChannels bounds the places remembered. Who has more of them is not told
	// of at all.
	maxChannels = 64
	// maxPlaces is how many hosts at uncommon ports one host is connected to in
	// two days. Above that it has peers: files, coins, calls.
	maxPlaces = 4
)

// Kept is what a host keeps connections to at uncommon TCP ports.
type Kept struct {
	Channels       modules.RecentTable[Channel] // by the hash of the other end
	Places, Before uint64                       // set of the hosts it was connected to today, and yesterday
	Day            int64
}

// Channel is a host on the Internet that is connected to nearly all the time,
// and with which hardly anything is spoken.
type Channel struct {
	From, Until int64 // unix ns
	Sum         int64 // ns of them with a connection
	Conns       int64 // connections that ended
	Most        int64 // bytes a second of the busier side
	Known       bool  // a remote control program listens at one of the ports
	Told        int64 // number of the window in which it was told last, plus 1
	UIDs        []string
}

// add counts a connection, and tells of the place once a window from when it
// turns out to be a channel.
func (k *Kept) add(cx *modules.Context, f *flow.Flow) {
	if !profile.IsPublic(f.Dst) || f.OrigBytes <= 0 || f.RespBytes <= 0 {
		return
	}
	if d := f.Time / day; d > k.Day {
		k.Places, k.Before = 0, k.Places
		if d > k.Day+1 {
			k.Before = 0
		}
		k.Day = d
	}
	hash := modules.Hash(f.Dst, 1)
	k.Places |= 1 << (hash >> 26)
	rate := max(f.OrigBytes, f.RespBytes) / max(1, f.Duration/int64(time.Second))
	if rate > idle {
		return
	}
	start, end := f.Time, f.Time+f.Duration
	c := k.Channels.Put(hash, maxChannels)
	if c.From == 0 || start-c.Until > rest || c.From-end > rest {
		*c = Channel{From: max(1, start), Until: start, Told: c.Told, UIDs: c.UIDs[:0]}
	}
	c.Sum += max(0, min(end, c.From)-start) + max(0, end-max(start, c.Until))
	c.From, c.Until = min(c.From, start), max(c.Until, end)
	c.Most = max(c.Most, rate)
	c.Known = c.Known || remote(f.DstPort)
	if !f.Open {
		c.Conns++
	}
	c.UIDs = remember(c.UIDs, f.UID)
	window := cx.Window().N + 1
	if c.Sum < kept || 4*c.Sum < 3*(c.Until-c.From) || window <= c.Told || bits.OnesCount64(k.Places|k.Before) > maxPlaces {
		return
	}
	c.Told = window
	cx.Emit(c.evidence(f))
}

func (c *Channel) evidence(f *flow.Flow) evidence.Evidence {
	// From kept on it grows until sure.
	part := min(1, float64(c.Sum-kept)/float64(sure-kept))
	level, confidence, what := evidence.Medium, 0.6+0.2*part, "an uncommon port"
	if c.Known {
		level, confidence, what = evidence.High, 0.8+0.2*part, "a port that remote control malware listens at by default"
	}
	how := "in one connection"
	if n := c.Conns; n > 1 {
		how = fmt.Sprintf("in %d connections", n)
	}
	return evidence.Evidence{
		Type: Long, Level: level, Confidence: math.Round(100*confidence) / 100,
		Attacker: evidence.IPEntity(f.Src, evidence.Src, 0),
		Victim:   evidence.IPEntity(f.Dst, evidence.Dst, f.DstPort),
		Description: fmt.Sprintf("%s has kept up a channel to %s port %d/%s, %s: connected for %d of %d minutes %s, with at most %d bytes a second either way",
			f.Src, f.Dst, f.DstPort, f.Proto, what, c.Sum/int64(time.Minute), (c.Until-c.From)/int64(time.Minute), how, c.Most),
		Proto: f.Proto.String(), DstPort: f.DstPort, UIDs: append([]string(nil), c.UIDs...), Count: max(1, c.Conns),
		Subject: f.Dst.String() + "|channel", Step: 1,
	}
}

// remote reports whether malware for remote control listens on the port unless
// its owner says otherwise, by what has been published about it.
func remote(port uint16) bool {
	switch port {
	case 1177, 5552, // njRAT
		1604,             // DarkComet
		2404,             // Remcos
		3360,             // NetWire
		3460,             // Poison Ivy
		4444,             // Metasploit
		4449,             // VenomRAT
		4782,             // Quasar
		6606, 7707, 8808, // AsyncRAT
		8848,  // DCRat
		10134, // Orcus
		54984: // NanoCore
		return true
	}
	return false
}

// common reports whether programs of honest people keep connections to hosts on
// the Internet at the port. It is what is in use, not what is registered.
func common(port uint16) bool {
	switch port {
	case 20, 21, 22, 23, 25, 43, 53, 80, 110, 119, 143, 179, 194, 389, 443, 465, 554, 563, 587, 636, 853, 873, 989, 990, 992, 993, 995,
		500, 1194, 1701, 1723, 4500, 51820, // VPN
		1863, 1883, 5190, 5222, 5223, 5228, 5229, 5230, 5269, 8883, 8884, 61613, 61614, 61616, 4222, 5671, 5672, 6697, 7000, // messages and push
		3478, 3479, 3480, 3481, 5060, 5061, 5349, 5350, 19302, 19305, 19307, 19309, // calls
		1935, 8554, 3128, 8000, 8008, 8080, 8081, 8443, 8888, 9443, 2053, 2083, 2087, 2096, 4070, // the web by other doors, music and films
		3389, 5900, 5938, 6568, 7070, 8200, 9418, 11371, 4172, 1494, 2598, 41641, // remote desktops
		1433, 1521, 3306, 5432, 5439, 6379, 6380, 9042, 9092, 9093, 9094, 9200, 9243, 27017, 26257, 6443, // databases and queues
		1119, 3074, 3724, 6112, 2099, 8393, 25565, // games
		3333, 8332, 8333, 9735, 18080, 30303, 50001, 50002, // coins
		9001, 9030, 22000, 22067, // Tor, Syncthing
		9543, 11095, 11111, 50443: // things, at their makers' clouds
		return true
	}
	return port >= 6660 && port <= 6669 || port >= 6881 && port <= 6999 || // IRC, BitTorrent
		port >= 27000 && port <= 27100 || port >= 61613 && port <= 61617 // Steam, queues
}
