package scrape

import "bytes"

// lineOver reports whether body has a line of more than limit bytes, as the
// parsers see lines: a line feed inside of quotes does not end one. The parsers
// quote whole lines in their errors and remember every label of one; this
// bounds both.
func lineOver(body []byte, limit int) bool {
	for len(body) > limit {
		end := lineEnd(body)
		if end > limit {
			return true
		}
		body = body[end:]
	}
	return false
}

// lineEnd is the length of the first line, with its line feed.
func lineEnd(b []byte) int {
	pos := 0
	if b[0] == '#' {
		// The text of HELP may hold a lone quote; only a quoted name before it
		// can hold a line feed.
		quote := quotedName(b)
		if quote < 0 {
			return nextLine(b, 0)
		}
		return nextLine(b, quoteEnd(b, quote))
	}
	nl := nextLine(b, 0)
	for {
		quote := bytes.IndexByte(b[pos:nl], '"')
		if quote < 0 {
			return nl
		}
		pos = quoteEnd(b, pos+quote)
		if pos > nl {
			nl = nextLine(b, pos)
		}
	}
}

// quotedName finds the quote that opens a metric's name in a line of metadata.
func quotedName(b []byte) int {
	rest := bytes.TrimLeft(b[1:], " \t")
	for _, word := range []string{"HELP", "TYPE", "UNIT"} {
		after, ok := bytes.CutPrefix(rest, []byte(word))
		if !ok {
			continue
		}
		if after = bytes.TrimLeft(after, " \t"); len(after) > 0 && after[0] == '"' {
			return len(b) - len(after)
		}
	}
	return -1
}

// quoteEnd is behind the quote that closes the one at open, or the end.
func quoteEnd(b []byte, open int) int {
	for i := open + 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(b)
}

// nextLine is behind the first line feed from pos on, or the end.
func nextLine(b []byte, pos int) int {
	if pos >= len(b) {
		return len(b)
	}
	if i := bytes.IndexByte(b[pos:], '\n'); i >= 0 {
		return pos + i + 1
	}
	return len(b)
}
