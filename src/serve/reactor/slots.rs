//! Allocation of connection entries, and assignment of connections to event loops.

/// The entries in use, and the number of connections of each event loop.
pub(in crate::serve) struct SlotAllocator {
    free: Vec<u32>,
    /// The number of entries that have ever been in use. They are the first ones of the table.
    used: u32,
    /// The number of connections of each loop.
    per_loop: Box<[u32]>,
    /// Accepting waits until a connection ends.
    pub full: bool,
    /// The accepting loop has not stopped accepting yet.
    pub accepts: bool,
}

impl SlotAllocator {
    pub(super) fn new(loops: usize) -> SlotAllocator {
        SlotAllocator {
            free: Vec::new(),
            used: 0,
            per_loop: vec![0; loops].into(),
            full: false,
            accepts: true,
        }
    }

    /// The number of entries that have ever been in use.
    pub(super) fn used(&self) -> u32 {
        self.used
    }

    /// Allocates an entry, and chooses the loop with the fewest connections among the loops that
    /// are not busy. `busy` returns whether a loop is busy, and whether it is in a callback now,
    /// which decides between loops with the same number of connections.
    pub(super) fn alloc(&mut self, busy: impl Fn(usize) -> (bool, bool)) -> (u32, usize) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.used += 1;
            self.used - 1
        });
        let loops = self.per_loop.iter().enumerate();
        let best = loops.min_by_key(|(number, connections)| {
            let (is_busy, in_callback) = busy(*number);
            (is_busy, **connections, in_callback)
        });
        let number = best.map_or(0, |(number, _)| number);
        self.per_loop[number] += 1;
        (index, number)
    }

    /// Frees the entry of a connection of loop `number`. An entry that is not `reusable` is never
    /// allocated again.
    pub(super) fn free(&mut self, index: u32, number: usize, reusable: bool) {
        if reusable {
            self.free.push(index);
        }
        self.per_loop[number] -= 1;
    }
}
