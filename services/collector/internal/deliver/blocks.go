package deliver

import "sync"

// blockItems is the length of a block, 320 KiB: many records, or a large one.
const blockItems = 8192

// A block is memory for the items of several entries.
type block struct {
	items  []Item
	used   int // entries that have items in it
	open   bool
	extras bool // some item has an Extra
}

// blocks are where items lie between the log and a request. What is not used is
// kept for later, until the garbage collector takes it. A block that is larger
// than others is for one record.
type blocks struct {
	usual, large sync.Pool
}

// take is a block with room for n items.
func (b *blocks) take(n int) *block {
	if n > blockItems {
		c, _ := b.large.Get().(*block)
		if c == nil || len(c.items) < n {
			c = &block{items: make([]Item, n)}
		}
		c.open = true
		return c
	}
	c, _ := b.usual.Get().(*block)
	if c == nil {
		c = &block{items: make([]Item, blockItems)}
	}
	c.open = true
	return c
}

// shut says that no more items come to a block.
func (b *blocks) shut(c *block) {
	c.open = false
	b.keep(c)
}

// release says that an entry has no more need of its items.
func (b *blocks) release(c *block) {
	c.used--
	b.keep(c)
}

// keep keeps a block that nothing uses for later.
func (b *blocks) keep(c *block) {
	if c.open || c.used > 0 {
		return
	}
	if c.extras {
		clear(c.items) // or what they point to would live on
		c.extras = false
	}
	if len(c.items) > blockItems {
		b.large.Put(c)
	} else {
		b.usual.Put(c)
	}
}
