package online

import (
	"container/list"
	"iter"
)

// lru is a map of bounded size that forgets what was not used for longest. It
// is not safe for use by several goroutines.
type lru[K comparable, V any] struct {
	size  int
	order *list.List // of lruEntry, the latest at the front
	m     map[K]*list.Element
}

type lruEntry[K comparable, V any] struct {
	key   K
	value V
}

func newLRU[K comparable, V any](size int) *lru[K, V] {
	return &lru[K, V]{size: size, order: list.New(), m: make(map[K]*list.Element)}
}

func (l *lru[K, V]) get(k K) (V, bool) {
	e := l.m[k]
	if e == nil {
		var none V
		return none, false
	}
	l.order.MoveToFront(e)
	return l.entry(e).value, true
}

func (l *lru[K, V]) put(k K, v V) {
	if e := l.m[k]; e != nil {
		e.Value = lruEntry[K, V]{k, v}
		l.order.MoveToFront(e)
		return
	}
	l.m[k] = l.order.PushFront(lruEntry[K, V]{k, v})
	if len(l.m) > l.size {
		e := l.order.Back()
		delete(l.m, l.entry(e).key)
		l.order.Remove(e)
	}
}

// oldestFirst yields the entries, the one that was not used for longest first.
func (l *lru[K, V]) oldestFirst() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		for e := l.order.Back(); e != nil; e = e.Prev() {
			if x := l.entry(e); !yield(x.key, x.value) {
				return
			}
		}
	}
}

func (l *lru[K, V]) entry(e *list.Element) lruEntry[K, V] {
	x, _ := e.Value.(lruEntry[K, V]) // nothing else is put into the list
	return x
}
