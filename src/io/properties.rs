//! Properties of the backoff.

use std::time::Duration;

use proptest::prelude::*;

use super::backoff::BackOff;
use crate::properties::check;

/// L3: the n-th time is the first one, doubled n times, but at most the maximum. No time overflows.
#[test]
fn backoff_times_are_the_first_one_doubled_up_to_the_maximum() {
    let time = || {
        let millis = (0..100_000u64).prop_map(Duration::from_millis);
        prop_oneof![millis, any::<Duration>(), Just(Duration::MAX), Just(Duration::ZERO)]
    };
    check(1000, (time(), time(), 0..150u32), |(one, other, count)| {
        let (first, longest) = (one.min(other), one.max(other));
        let mut backoff = BackOff::new(first, longest);
        for n in 0..count {
            let doubled =
                2u128.checked_pow(n).and_then(|factor| first.as_nanos().checked_mul(factor));
            let expected = match doubled {
                Some(doubled) => doubled.min(longest.as_nanos()),
                None => longest.as_nanos(),
            };
            let expected = if first.is_zero() { 0 } else { expected };
            prop_assert_eq!(backoff.next().as_nanos(), expected, "time {}", n);
        }
        Ok(())
    });
}
