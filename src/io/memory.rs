//! Copies and lists whose size the program or the peer determines. The standard library ends the
//! process if it has no memory for them. These functions return `None`.

/// Copies bytes.
pub(crate) fn copied(bytes: &[u8]) -> Option<Vec<u8>> {
    joined(bytes.len(), [bytes])
}

/// Copies several slices, one after another, of `len` bytes together.
pub(crate) fn joined<'a>(len: usize, parts: impl IntoIterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(len).ok()?;
    parts.into_iter().for_each(|part| copy.extend_from_slice(part));
    Some(copy)
}

/// Appends bytes. Without memory the vector stays as it is.
#[cfg(feature = "serve")]
pub(crate) fn appended(to: &mut Vec<u8>, bytes: &[u8]) -> Option<()> {
    to.try_reserve(bytes.len()).ok()?;
    to.extend_from_slice(bytes);
    Some(())
}

/// Appends bytes to a buffer that will usually not exceed `most` bytes. It grows by doubling its size, but
/// not to more than `most`. Without memory the vector stays as it is.
#[cfg(feature = "serve")]
pub(crate) fn appended_within(to: &mut Vec<u8>, bytes: &[u8], most: usize) -> Option<()> {
    let needed = to.len().checked_add(bytes.len())?;
    if needed > to.capacity() {
        let size = to.capacity().saturating_mul(2).min(most).max(needed);
        to.try_reserve_exact(size - to.len()).ok()?;
    }
    to.extend_from_slice(bytes);
    Some(())
}

/// Copies text. U+FFFD replaces the bytes that are not UTF-8.
pub(crate) fn text(bytes: &[u8]) -> Option<String> {
    let mut text = String::new();
    text.try_reserve_exact(bytes.len()).ok()?;
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        if !chunk.invalid().is_empty() {
            text.try_reserve(char::REPLACEMENT_CHARACTER.len_utf8()).ok()?;
            text.push(char::REPLACEMENT_CHARACTER);
        }
        text.try_reserve(bytes.len().saturating_sub(text.len())).ok()?;
    }
    Some(text)
}

/// Collects items, of which there are at most `count`.
#[cfg(feature = "serve")]
pub(crate) fn listed<T>(count: usize, items: impl IntoIterator<Item = T>) -> Option<Vec<T>> {
    let mut list = Vec::new();
    list.try_reserve_exact(count).ok()?;
    list.extend(items.into_iter().take(count));
    Some(list)
}

/// Boxes a value. The array converts into the box of a trait object without a second allocation.
#[cfg(feature = "serve")]
pub(crate) fn boxed<T>(value: T) -> Option<Box<[T; 1]>> {
    listed(1, [value])?.into_boxed_slice().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// V2: a long message does not use twice its memory, and appending many parts copies few bytes.
    #[cfg(feature = "serve")]
    #[test]
    fn appended_within_doubles_up_to_the_maximum() {
        const MOST: usize = 100_000;
        let (mut buffer, mut sizes) = (Vec::new(), Vec::new());
        for len in (1..=MOST + 10).step_by(9) {
            appended_within(&mut buffer, &[7; 9], MOST).unwrap();
            assert_eq!(buffer.len(), len + 8);
            assert!(buffer.capacity() <= MOST.max(buffer.len()));
            sizes.push(buffer.capacity());
        }
        sizes.dedup();
        assert!(sizes.len() < 24, "{sizes:?}");
    }

    #[test]
    fn text_replaces_what_is_not_utf8() {
        for bytes in
            [&b"plain"[..], b"", b"\xff\xfe", b"a\xffb\xc3", "a\u{e4}".as_bytes(), &[0x80; 99]]
        {
            assert_eq!(text(bytes).unwrap(), String::from_utf8_lossy(bytes));
        }
    }
}
