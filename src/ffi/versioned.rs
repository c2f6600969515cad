//! Structures that a caller passes with their size, and that later versions extend.

use crate::Error;
use crate::ffi::{Result, check_len, invalid};

/// A structure that the caller passes with its size. It may grow at its end, by whole members.
pub(crate) trait Versioned {
    /// The size in each version of the header, from the first to this one.
    const SIZES: &'static [usize];

    /// Rejects a size that no version of the structure has or can have. A later version is larger
    /// than this one and has its alignment.
    #[inline]
    fn check_size(size: usize, name: &str) -> Result<()>
    where
        Self: Sized,
    {
        let later = size > size_of::<Self>() && size % align_of::<Self>() == 0;
        if !later && !Self::SIZES.contains(&size) {
            return Err(wrong_size::<Self>(size, name));
        }
        check_len(size)
    }
}

/// Makes a structure [`Versioned`]. Arguments: the size of its first version on platforms with 64-bit
/// pointers, and for each later version the first member that this version added. A structure that
/// grows does not compile until the new member is listed.
macro_rules! versioned {
    ($name:ident: $first:literal $(then $member:ident)*) => {
        impl $crate::ffi::Versioned for $name {
            const SIZES: &'static [usize] = &[
                $(std::mem::offset_of!($name, $member).next_multiple_of(align_of::<$name>()),)*
                size_of::<$name>(),
            ];
        }
        #[cfg(target_pointer_width = "64")]
        const _: () = assert!(
            <$name as $crate::ffi::Versioned>::SIZES[0] == $first,
            "a structure has grown: list the first member that was added"
        );
    };
}
pub(crate) use versioned;

#[cold]
fn wrong_size<T: Versioned>(size: usize, name: &str) -> Error {
    let (least, now) = (T::SIZES[0], size_of::<T>());
    let range = if least == now { now.to_string() } else { format!("{least} to {now}") };
    let what = format!("{name} is {size}, but the structure has {range} bytes: pass its sizeof");
    invalid(what)
}

#[cfg(test)]
mod tests {
    use crate::ErrorKind;
    use crate::ffi::{Structure, Versioned};

    /// A structure of the third version, which has all that the first and the second had. It has the
    /// alignment of its numbers on 64-bit systems.
    #[repr(C, align(8))]
    #[derive(Clone, Copy)]
    struct grown {
        a: u64,
        b: u32,
        added_second: [u8; 12],
        added_third: u64,
    }

    versioned!(grown: 16 then added_second then added_third);

    /// A1: a caller of each version gets the members that its version has and nothing more.
    #[test]
    fn structure_fills_the_version_of_the_caller() {
        assert_eq!(grown::SIZES, [16, 24, 32]);
        let value = grown { a: u64::MAX, b: u32::MAX, added_second: [9; 12], added_third: 3 };
        for (size, known) in [(16, 16), (24, 24), (32, 32), (40, 32), (4096, 32)] {
            let mut out = vec![0x5au8; size + 8];
            let at = out.as_mut_ptr().cast::<grown>();
            // SAFETY: `out` has more than `size` bytes.
            unsafe { Structure::new(at, size) }.fill(&value).unwrap();
            assert_eq!(out[..8], [0xff; 8]);
            assert_eq!(out[16..size.min(24)], [9; 8][..size.min(24) - 16]);
            assert!(out[known..size].iter().all(|b| *b == 0), "{size}: not zeroed");
            assert_eq!(out[size..], [0x5a; 8], "{size}: written beyond the caller's structure");
        }
    }

    /// A1, E2: a size that no version has is rejected, and nothing is written.
    #[test]
    fn structure_rejects_a_size_of_no_version() {
        let value = grown { a: 1, b: 2, added_second: [3; 12], added_third: 4 };
        for size in [0, 1, 8, 15, 17, 20, 23, 25, 28, 31, 33, 36, 39, usize::MAX, usize::MAX - 7] {
            let mut out = [0x5au8; 64];
            // SAFETY: a size that is too large for `out` is rejected, and nothing is written.
            let rejected = unsafe { Structure::new(out.as_mut_ptr().cast(), size) }.fill(&value);
            assert_eq!(rejected.unwrap_err().kind(), ErrorKind::InvalidArgument, "{size}");
            assert_eq!(out, [0x5a; 64], "{size}");
        }
    }
}
