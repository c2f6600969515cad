//! The numbers that stand for objects.

use std::ptr;

use super::Handle;

/// The bits of the type. The lowest bit is 1, so a pointer to an object is no handle.
pub(super) const TAG_BITS: u32 = 7;
pub(super) const GENERATION_BITS: u32 = if usize::BITS >= 64 { 32 } else { 9 };
pub(super) const SLOT_BITS: u32 = usize::BITS - TAG_BITS - GENERATION_BITS;
const GENERATION_MASK: usize = ((1u64 << GENERATION_BITS) - 1) as usize;

/// The slot and the generation of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) slot: u32,
    /// Odd, because the slot has an object.
    pub(super) generation: u32,
}

impl Value {
    /// The type, the bit that no pointer to an object has, and the lowest bit of the generation.
    pub(super) const fn tag<T: Handle>() -> usize {
        T::MARK as usize | 1 | 1 << TAG_BITS
    }

    #[inline]
    pub(super) fn encode<T: Handle>(self) -> *mut T {
        let generation = self.generation as usize & GENERATION_MASK;
        let slot = (self.slot as usize) << (TAG_BITS + GENERATION_BITS);
        ptr::without_provenance_mut(slot | generation << TAG_BITS | Value::tag::<T>())
    }

    #[inline]
    pub(super) fn decode<T: Handle>(handle: *const T) -> Option<Value> {
        let bits = handle.addr();
        (bits & 0xff == Value::tag::<T>()).then_some(Value {
            slot: (bits >> (TAG_BITS + GENERATION_BITS)) as u32,
            generation: (bits >> TAG_BITS & GENERATION_MASK) as u32,
        })
    }

    /// Whether a slot in this state has the object that the value stands for.
    #[inline]
    pub(super) fn is_in(self, state: u64) -> bool {
        generation_of(state) as usize & GENERATION_MASK == self.generation as usize
    }
}

/// The generation that the state of a slot holds.
pub(super) fn generation_of(state: u64) -> u32 {
    (state >> 32) as u32
}
