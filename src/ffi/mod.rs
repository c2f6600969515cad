//! The C API: a thin room over the public Rust API, and nothing deeper.
//!
//! One file for each handle. `guard` is the boundary: it turns results and
//! panics into a status and an error object. What C sees is in
//! `include/keepsock.h`, which cbindgen makes of these files; the comments of
//! public items here are written for C programmers and are its manual.

#![allow(non_camel_case_types)]
#![allow(missing_docs)] // the header gate looks for comments of its own
#![allow(rustdoc::broken_intra_doc_links)] // "[::1]:80" is an endpoint to a C programmer

use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::{Endpoint, Error, ErrorKind};

mod address;
mod alive;
mod cancel;
mod client;
mod connecting;
mod connection;
mod datagram;
mod datagram_service;
mod datagram_settings;
mod error;
mod handle;
mod handshake;
mod inherited;
mod logging;
mod options;
mod reconnect;
mod rights;
mod server;
mod service;

pub use address::*;
pub use alive::*;
pub use cancel::*;
pub use client::*;
pub use connecting::*;
pub use connection::*;
pub use datagram::*;
pub use datagram_service::*;
pub use datagram_settings::*;
pub use error::*;
pub use handshake::*;
pub use inherited::*;
pub use logging::*;
pub use options::*;
pub use reconnect::*;
pub use rights::*;
pub use server::*;
pub use service::*;

type Result<T> = crate::Result<T>;

/// The version of this header: 0.1.0. Compare with keepsock_version(), which is
/// the library's.
pub const KEEPSOCK_VERSION_MAJOR: i32 = 0;
/// See KEEPSOCK_VERSION_MAJOR.
pub const KEEPSOCK_VERSION_MINOR: i32 = 1;
/// See KEEPSOCK_VERSION_MAJOR.
pub const KEEPSOCK_VERSION_PATCH: i32 = 0;

/// The status of a call that succeeded. Every other status is negative:
/// enum keepsock_err.
pub const KEEPSOCK_OK: i32 = 0;

/// For any argument in milliseconds: no limit.
pub const KEEPSOCK_INFINITE: i64 = -1;

/// A socket as the system knows it: a descriptor, or a SOCKET on Windows.
#[cfg(windows)]
pub type keepsock_fd = usize;
/// A socket as the system knows it: a descriptor, or a SOCKET on Windows.
#[cfg(not(windows))]
pub type keepsock_fd = std::ffi::c_int;

/// The version of the library, as "0.1.0".
///
/// @return A static string. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn keepsock_version() -> *const c_char {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(text) => text,
            Err(_) => c"unknown",
        };
    VERSION.as_ptr()
}

/// Runs the body of a C function: no panic leaves it, and a failure becomes a
/// status and, if the caller wants one, an error object.
///
/// # Safety
/// `error` is null or points to a pointer that may be written.
#[inline]
unsafe fn guard(
    error: *mut *mut keepsock_error,
    operation: &'static str,
    body: impl FnOnce() -> Result<()>,
) -> i32 {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => KEEPSOCK_OK,
        // SAFETY: as the caller promises.
        Ok(Err(e)) => unsafe { report(error, e) },
        // SAFETY: as the caller promises.
        Err(_) => unsafe { report(error, Error::new(ErrorKind::Panic, operation)) },
    }
}

/// # Safety
/// As for [`guard`].
#[cold]
unsafe fn report(out: *mut *mut keepsock_error, error: Error) -> i32 {
    let status = error.kind().code();
    if !out.is_null() {
        let handle = handle::give(keepsock_error::new(error));
        // SAFETY: out is not null and writable.
        unsafe { out.write(handle) };
    }
    status
}

/// Runs a body that cannot fail but might panic, with a value for that case.
fn shield<T>(otherwise: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(otherwise)
}

fn invalid(operation: &'static str, what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, operation).detail(what)
}

/// A handle that must be one.
///
/// # Safety
/// `pointer` is null or a handle of C's, and is not freed while the result lives.
#[inline]
unsafe fn live<'a, T: handle::Handle>(
    pointer: *const T,
    operation: &'static str,
    name: &str,
) -> Result<&'a T> {
    // SAFETY: as the caller promises.
    match unsafe { handle::get(pointer) } {
        Some(object) => Ok(object),
        None => Err(not_a_handle(pointer, operation, name)),
    }
}

/// A handle for which NULL stands for none.
///
/// # Safety
/// As for [`live`].
unsafe fn optional<'a, T: handle::Handle>(
    pointer: *const T,
    operation: &'static str,
    name: &str,
) -> Result<Option<&'a T>> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: as the caller promises.
    unsafe { live(pointer, operation, name) }.map(Some)
}

#[cold]
fn not_a_handle<T>(pointer: *const T, operation: &'static str, name: &str) -> Error {
    if pointer.is_null() {
        return is_null(operation, name);
    }
    let what = format!("{name} was freed, or is something else");
    Error::new(ErrorKind::WrongState, operation).detail(what)
}

/// An output that must not be NULL.
#[inline]
fn output<T>(pointer: *mut T, operation: &'static str, name: &str) -> Result<*mut T> {
    if pointer.is_null() { Err(is_null(operation, name)) } else { Ok(pointer) }
}

#[cold]
fn is_null(operation: &'static str, name: &str) -> Error {
    invalid(operation, format!("{name} is NULL"))
}

/// A NUL-terminated string from C.
///
/// # Safety
/// `text` is null or a NUL-terminated string.
unsafe fn text<'a>(text: *const c_char, operation: &'static str, name: &str) -> Result<&'a str> {
    if text.is_null() {
        return Err(is_null(operation, name));
    }
    // SAFETY: not null, and NUL-terminated by the caller's promise.
    let bytes = unsafe { CStr::from_ptr(text) };
    bytes.to_str().map_err(|_| invalid(operation, format!("{name} is not UTF-8")))
}

/// # Safety
/// As for [`text`].
unsafe fn endpoint(pointer: *const c_char, operation: &'static str) -> Result<Endpoint> {
    // SAFETY: as the caller promises.
    let text = unsafe { text(pointer, operation, "endpoint") }?;
    text.parse::<Endpoint>().map_err(|e| e.during(operation))
}

/// A buffer that C gives to be read from.
///
/// # Safety
/// `data` points to `len` readable bytes, or `len` is 0.
#[inline]
unsafe fn bytes<'a, T>(data: *const T, len: usize, operation: &'static str) -> Result<&'a [u8]> {
    if len == 0 {
        return Ok(&[]);
    }
    if data.is_null() {
        return Err(is_null(operation, "buf"));
    }
    check_len(len, operation)?;
    // SAFETY: not null, and `len` bytes by the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(data.cast(), len) })
}

/// A buffer that C gives to be filled.
///
/// # Safety
/// `data` points to `len` writable bytes that nobody else uses, or `len` is 0.
#[inline]
unsafe fn bytes_mut<'a, T>(
    data: *mut T,
    len: usize,
    operation: &'static str,
) -> Result<&'a mut [u8]> {
    if len == 0 {
        return Ok(&mut []);
    }
    if data.is_null() {
        return Err(is_null(operation, "buf"));
    }
    check_len(len, operation)?;
    // SAFETY: not null, and `len` bytes by the caller's promise. Rust reads
    // none of them before they are written.
    Ok(unsafe { std::slice::from_raw_parts_mut(data.cast(), len) })
}

/// No object is larger than half the address space; a negative number that
/// became a size is.
#[inline]
fn check_len(len: usize, operation: &'static str) -> Result<()> {
    if isize::try_from(len).is_ok() { Ok(()) } else { Err(is_too_long(operation, len)) }
}

#[cold]
fn is_too_long(operation: &'static str, len: usize) -> Error {
    invalid(operation, format!("length {len} is out of range"))
}

/// Milliseconds from C: KEEPSOCK_INFINITE is no limit.
fn timeout(ms: i64, operation: &'static str) -> Result<Option<Duration>> {
    match u64::try_from(ms) {
        Ok(ms) => Ok(Some(Duration::from_millis(ms))),
        Err(_) if ms == KEEPSOCK_INFINITE => Ok(None),
        Err(_) => Err(invalid(operation, format!("{ms} ms is out of range"))),
    }
}

/// Milliseconds for C: up, so that nothing is asked before its time.
fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)
}

/// Milliseconds from C for what needs a limit.
fn time(ms: i64, operation: &'static str) -> Result<Duration> {
    timeout(ms, operation)?
        .ok_or_else(|| invalid(operation, "KEEPSOCK_INFINITE is not allowed here"))
}

/// An output for which NULL stands for none.
///
/// # Safety
/// `out` is null or writable.
unsafe fn write_if_wanted<T>(out: *mut T, value: T) {
    if !out.is_null() {
        // SAFETY: as the caller promises.
        unsafe { out.write(value) };
    }
}

/// Fills the caller's structure. One of a later header, which has grown, is zeroed
/// beyond what this version knows; none was ever smaller.
///
/// # Safety
/// `out` is null or points to `size` writable bytes. `T` is a C structure.
unsafe fn write_sized<T: Copy>(
    out: *mut T,
    size: usize,
    value: &T,
    operation: &'static str,
) -> Result<()> {
    let out = output(out, operation, "out")?.cast::<u8>();
    let known = size_of::<T>();
    if size < known {
        return Err(invalid(operation, format!("size {size} is below {known}: write sizeof *out")));
    }
    check_len(size, operation)?;
    // SAFETY: `known` bytes are readable in value, `size` writable in out.
    unsafe {
        std::ptr::copy_nonoverlapping(std::ptr::from_ref(value).cast::<u8>(), out, known);
        std::ptr::write_bytes(out.add(known), 0, size - known);
    }
    Ok(())
}

/// Fills the caller's buffer with text, or says how large it must be.
///
/// # Safety
/// `buf` points to `cap` writable bytes, or `cap` is 0; `needed` is null or writable.
unsafe fn write_text(
    buf: *mut c_char,
    cap: usize,
    needed: *mut usize,
    text: impl std::fmt::Display,
    operation: &'static str,
) -> Result<()> {
    let text = c_string(text);
    let text = text.as_bytes_with_nul();
    // SAFETY: as the caller promises.
    unsafe { write_if_wanted(needed, text.len()) };
    // SAFETY: `cap` bytes by the caller's promise.
    match unsafe { bytes_mut(buf, cap, operation) }?.get_mut(..text.len()) {
        Some(space) => {
            space.copy_from_slice(text);
            Ok(())
        }
        None => {
            let what = format!("{} bytes are needed, cap is {cap}", text.len());
            Err(Error::new(ErrorKind::TooLong, operation).detail(what))
        }
    }
}

/// Text for C. A NUL, as an abstract Unix name may hold, is shown as `@`.
fn c_string(text: impl std::fmt::Display) -> CString {
    CString::new(text.to_string().replace('\0', "@")).unwrap_or_default()
}

/// Copies text into a fixed field with its final NUL, cut if it is longer.
fn fill_text<const N: usize>(field: &mut [c_char; N], text: &str) {
    let bytes = text.bytes().map(|b| if b == 0 { b'@' } else { b });
    for (slot, byte) in field[..N - 1].iter_mut().zip(bytes) {
        *slot = byte as c_char;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// E3: a panic becomes a status and an error object, or the value for that case.
    #[test]
    fn a_panic_stays_inside() {
        let mut error = std::ptr::null_mut();
        // SAFETY: error is null or writable.
        unsafe {
            let defect = || -> Result<()> { panic!("a defect") };
            assert_eq!(guard(std::ptr::null_mut(), "test", defect), ErrorKind::Panic.code());
            assert_eq!(guard(&raw mut error, "test", defect), ErrorKind::Panic.code());
        }
        // SAFETY: guard made it.
        unsafe {
            assert_eq!(keepsock_error_status(error), ErrorKind::Panic.code());
            let message = CStr::from_ptr(keepsock_error_message(error));
            assert_eq!(message, c"test: internal error");
            keepsock_error_free(error);
        }
        assert_eq!(shield(7, || panic!("a defect")), 7);
    }
}
