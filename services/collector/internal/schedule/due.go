package schedule

import "slices"

// A dueHeap holds entries by their next due time, the earliest on top. The
// times stand beside the pointers, so that sifting does not touch the entries'
// memory but for the slot.
type dueHeap []dueItem

type dueItem struct {
	tick  int64 // ms of Unix time
	entry *entry
}

func (h *dueHeap) push(e *entry, tick int64) {
	*h = append(*h, dueItem{tick, e})
	h.up(len(*h) - 1)
}

// tick is the due time of an entry in the heap.
func (h *dueHeap) tick(e *entry) int64 { return (*h)[e.slot].tick }

// set moves an entry of the heap to another due time.
func (h *dueHeap) set(e *entry, tick int64) {
	i := int(e.slot)
	(*h)[i].tick = tick
	h.down(i)
	h.up(int(e.slot))
}

func (h *dueHeap) remove(e *entry) {
	i, last := int(e.slot), len(*h)-1
	moved := (*h)[last]
	(*h)[last] = dueItem{}
	*h = (*h)[:last]
	e.slot = noSlot
	if i == last {
		return
	}
	(*h)[i] = moved
	h.down(i)
	h.up(int(moved.entry.slot))
}

// order restores the heap after the times of any entries were changed.
func (h *dueHeap) order() {
	for i := range slices.Backward(*h) {
		h.down(i)
	}
}

func (h *dueHeap) up(i int) {
	items := *h
	item := items[i]
	for i > 0 {
		parent := (i - 1) / 2
		if items[parent].tick <= item.tick {
			break
		}
		items[i] = items[parent]
		items[i].entry.slot = int32(i)
		i = parent
	}
	items[i] = item
	item.entry.slot = int32(i)
}

func (h *dueHeap) down(i int) {
	items := *h
	item := items[i]
	for {
		child := 2*i + 1
		if child >= len(items) {
			break
		}
		if right := child + 1; right < len(items) && items[right].tick < items[child].tick {
			child = right
		}
		if item.tick <= items[child].tick {
			break
		}
		items[i] = items[child]
		items[i].entry.slot = int32(i)
		i = child
	}
	items[i] = item
	item.entry.slot = int32(i)
}
