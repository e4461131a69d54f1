package online

// Waiting returns how many subjects wait to be asked about, and answers to be
// recorded. Once it is 0 and nobody asks any more, all that is to come has come.
// Any goroutine may call it.
func (a *Asker) Waiting() int {
	n := len(a.ready)
	for _, w := range a.workers {
		w.mu.Lock()
		if w.stopped == "" {
			n += len(w.pending)
		}
		w.mu.Unlock()
	}
	return n
}
