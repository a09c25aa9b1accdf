package endpoint

import "net/netip"

// Loopback is the Origin of everybody on this host.
const Loopback = "loopback"

// Origin is where somebody calls from, by the remote address of his connection: as
// far as one who has an address has others, too. It has no port, and of IPv6 it is
// the network. What is no address with a port is returned as it is.
func Origin(remote string) string {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return remote
	}
	switch addr := at.Addr().Unmap().WithZone(""); {
	case addr.IsLoopback():
		return Loopback
	case addr.Is6():
		return netip.PrefixFrom(addr, 64).Masked().String()
	default:
		return addr.String()
	}
}
