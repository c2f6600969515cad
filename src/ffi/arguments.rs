//! Arguments of C functions.
//!
//! A C function converts its pointers in one block, with the unsafe constructors of this module.
//! They state what the header requires of the caller. All code after that block is safe: the
//! methods of the arguments check for NULL, freed objects, sizes and encodings, and their errors
//! name the argument.
//!
//! An error of this module has no operation. [`call`](super::call) adds the operation of the
//! function.

use std::borrow::Cow;
use std::ffi::{CStr, c_char, c_void};
use std::fmt::Display;
use std::io::{IoSlice, IoSliceMut};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::ptr::NonNull;
use std::slice;
use std::time::Duration;

#[cfg(feature = "datagram")]
use crate::Address;
use crate::ffi::handle::Share;
use crate::ffi::{
    Handle, KEEPSOCK_INFINITE, Result, Versioned, address_from_c, c_string, handle,
    keepsock_address, keepsock_buffer, keepsock_error, keepsock_fd, keepsock_slice,
};
use crate::internal::{Borrowed, Owned, SLICE_LEN_MAX};
use crate::{Endpoint, Error, ErrorKind};

/// The operation of an error that was found before the operation began.
pub(crate) const NO_OPERATION: &str = "";

#[cold]
pub(crate) fn invalid(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, NO_OPERATION).detail(what)
}

#[cold]
pub(crate) fn null(name: &str) -> Error {
    invalid(format!("{name} is NULL"))
}

/// The error for an index after the last element of a list with `count` elements.
#[cold]
pub(crate) fn no_element(name: &str, index: usize, count: usize) -> Error {
    not_found(crate::internal::no_element(name, index, count))
}

/// The error for an element that does not exist, and for an empty queue.
#[cold]
pub(crate) fn not_found(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::NotFound, NO_OPERATION).detail(what)
}

#[cold]
fn out_of_range(len: usize) -> Error {
    invalid(format!("the length {len} is longer than any buffer: was it a negative number?"))
}

/// Rejects a length that no object has: more than half the address space. A negative number that
/// was converted to `size_t` is such a length.
#[inline]
pub(crate) fn check_len(len: usize) -> Result<()> {
    if isize::try_from(len).is_ok() { Ok(()) } else { Err(out_of_range(len)) }
}

/// Rejects a number of elements that no array has, as [`check_len`] does.
fn check_count(name: &str, count: usize, size: usize) -> Result<()> {
    if isize::try_from(count.saturating_mul(size)).is_ok() {
        return Ok(());
    }
    Err(invalid(format!("{name} cannot have {count} elements: was it a negative number?")))
}

/// The argument `name`, a timeout in milliseconds; `None` for KEEPSOCK_INFINITE.
pub(crate) fn timeout(name: &str, ms: i64) -> Result<Option<Duration>> {
    match u64::try_from(ms) {
        Ok(ms) => Ok(Some(Duration::from_millis(ms))),
        Err(_) if ms == KEEPSOCK_INFINITE => Ok(None),
        Err(_) => Err(invalid(format!(
            "{name} is {ms} ms: it must not be negative, except KEEPSOCK_INFINITE (-1)"
        ))),
    }
}

/// The argument `name`, a time in milliseconds that has to be finite.
pub(crate) fn time(name: &str, ms: i64) -> Result<Duration> {
    let what = match u64::try_from(ms) {
        Ok(ms) => return Ok(Duration::from_millis(ms)),
        Err(_) if ms == KEEPSOCK_INFINITE => "KEEPSOCK_INFINITE".to_owned(),
        Err(_) => format!("{ms} ms"),
    };
    Err(invalid(format!("{name} is {what}: it must be a number of milliseconds from 0")))
}

/// Where a function stores its error object; NULL if the caller wants the status only.
#[derive(Clone, Copy)]
pub(crate) struct ErrorOut<'a>(*mut *mut keepsock_error, PhantomData<&'a mut ()>);

impl ErrorOut<'_> {
    /// # Safety
    /// `pointer` is NULL, or it is writable during the call.
    #[inline]
    pub(crate) unsafe fn new(pointer: *mut *mut keepsock_error) -> Self {
        ErrorOut(pointer, PhantomData)
    }

    #[inline]
    pub(crate) fn is_wanted(self) -> bool {
        !self.0.is_null()
    }

    /// Takes the handle from the variable of the caller, which becomes NULL.
    ///
    /// # Safety
    /// The variable, if there is one, is readable.
    pub(crate) unsafe fn take(self) -> *mut keepsock_error {
        if !self.is_wanted() {
            return std::ptr::null_mut();
        }
        // SAFETY: `new` requires a pointer that is NULL or writable, and it is not NULL. The caller
        // guarantees that it is readable.
        unsafe { self.0.replace(std::ptr::null_mut()) }
    }

    /// Stores an error object, if the caller wants one.
    pub(crate) fn store(self, error: impl FnOnce() -> keepsock_error) {
        if self.is_wanted() {
            let handle = handle::give(error());
            // SAFETY: `new` requires a pointer that is NULL or writable, and it is not NULL.
            unsafe { self.0.write(handle) };
        }
    }
}

/// An object that the function uses and other threads may use at the same time.
pub(crate) struct Ref<'a, T>(*const T, PhantomData<&'a T>);

impl<T> Clone for Ref<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Ref<'_, T> {}

impl<'a, T: Handle> Ref<'a, T> {
    /// # Safety
    /// If the value is the handle of an object, no thread frees that object during the call. Any
    /// other value is permitted.
    #[inline]
    pub(crate) unsafe fn new(handle: *const T) -> Self {
        Ref(handle, PhantomData)
    }

    /// The object; `None` for every value that is not the handle of an object.
    #[inline]
    pub(crate) fn find(self) -> Option<&'a T> {
        // SAFETY: `new` requires that the object, if there is one, is not freed during the call.
        unsafe { handle::get(self.0) }
    }

    #[inline]
    pub(crate) fn get(self) -> Result<&'a T> {
        let handle = self.0;
        self.find().ok_or_else(|| not_an_object(handle))
    }

    /// A share in the object of an object that may have several handles.
    pub(crate) fn share(self) -> Result<Share<T>> {
        // SAFETY: `new` requires that the object, if there is one, is not freed during the call.
        unsafe { Share::new(self.0) }.ok_or_else(|| not_an_object(self.0))
    }

    /// The object, or `None` for NULL.
    #[inline]
    pub(crate) fn optional(self) -> Result<Option<&'a T>> {
        if self.0.is_null() { Ok(None) } else { self.get().map(Some) }
    }

    /// The options of the object, or the defaults for NULL.
    pub(crate) fn or_default(self) -> Result<Cow<'a, T::Target>>
    where
        T::Target: Clone + Default + 'a,
    {
        Ok(self.optional()?.map_or_else(Cow::default, |object| Cow::Borrowed(object.target())))
    }
}

/// An object that the function changes while no other thread uses it.
pub(crate) struct Mut<'a, T>(*mut T, PhantomData<&'a mut T>);

impl<'a, T: Handle> Mut<'a, T> {
    /// # Safety
    /// If the value is the handle of an object, no other thread uses or frees that object during
    /// the call. Any other value is permitted.
    #[inline]
    pub(crate) unsafe fn new(handle: *mut T) -> Self {
        Mut(handle, PhantomData)
    }

    #[inline]
    pub(crate) fn get(self) -> Result<&'a mut T> {
        // SAFETY: `new` requires that only this call uses the object, and `self` is consumed.
        unsafe { handle::get_mut(self.0) }.ok_or_else(|| not_an_object(self.0))
    }
}

/// The variable of an object that moves into the library. It becomes NULL then.
#[cfg(feature = "serve")]
pub(crate) struct Taken<'a, T>(*mut *mut T, &'static str, PhantomData<&'a mut T>);

#[cfg(feature = "serve")]
impl<'a, T: Handle> Taken<'a, T> {
    /// # Safety
    /// `variable` is NULL, or it is readable and writable during the call. No other thread frees its
    /// object during the call.
    pub(crate) unsafe fn new(variable: *mut *mut T, name: &'static str) -> Self {
        Taken(variable, name, PhantomData)
    }

    /// Calls `body` with the object, and frees the object on success.
    pub(crate) fn with(self, body: impl FnOnce(&T::Target) -> Result<()>) -> Result<()> {
        let variable = NonNull::new(self.0).ok_or_else(|| null(self.1))?;
        // SAFETY: `new` requires a readable variable.
        let handle = unsafe { variable.read() };
        // SAFETY: `new` requires that no other thread frees the object during the call.
        body(unsafe { Ref::new(handle.cast_const()) }.get()?.target())?;
        // SAFETY: `new` requires a writable variable, and that no other thread uses the object. The
        // reference of `body` has ended.
        unsafe {
            variable.write(std::ptr::null_mut());
            handle::free(handle);
        }
        Ok(())
    }
}

/// The `user` pointer of a program, which the library passes to a callback.
#[derive(Clone, Copy)]
pub(crate) struct User(pub(crate) *mut c_void);

// SAFETY: the library passes the pointer to the program's callbacks and does not use it. The header
// states which threads call them.
unsafe impl Send for User {}
// SAFETY: as for `Send`.
unsafe impl Sync for User {}

impl User {
    /// A closure that calls this function contains the whole value, which is `Send`.
    pub(crate) fn get(&self) -> *mut c_void {
        self.0
    }
}

#[cold]
fn not_an_object<T: Handle>(handle: *const T) -> Error {
    if handle.is_null() {
        return null(T::NAME);
    }
    let what = format!("{} is a freed object, or an object of another type", T::NAME);
    Error::new(ErrorKind::WrongState, NO_OPERATION).detail(what)
}

/// Where a function stores an object, a descriptor or another value that the caller must want.
pub(crate) struct Out<'a, T> {
    pointer: *mut T,
    name: &'static str,
    call: PhantomData<&'a mut T>,
}

impl<'a, T> Out<'a, T> {
    /// # Safety
    /// `pointer` is NULL, or it is writable during the call.
    #[inline]
    pub(crate) unsafe fn new(pointer: *mut T, name: &'static str) -> Self {
        Out { pointer, name, call: PhantomData }
    }

    /// Rejects NULL. A function calls this before it does anything that it cannot undo.
    #[inline]
    pub(crate) fn required(self) -> Result<Place<'a, T>> {
        let pointer = NonNull::new(self.pointer).ok_or_else(|| null(self.name))?;
        Ok(Place(pointer, PhantomData))
    }
}

/// Where a function stores a number or a flag; NULL if the caller does not want it.
pub(crate) struct Optional<'a, T>(*mut T, PhantomData<&'a mut T>);

impl<T: Copy> Optional<'_, T> {
    /// # Safety
    /// `pointer` is NULL, or it is writable during the call.
    #[inline]
    pub(crate) unsafe fn new(pointer: *mut T) -> Self {
        Optional(pointer, PhantomData)
    }

    /// Stores the value, if the caller wants it.
    #[inline]
    pub(crate) fn write(self, value: T) {
        if let Some(pointer) = NonNull::new(self.0) {
            Place(pointer, PhantomData).write(value);
        }
    }
}

/// An output that is not NULL.
pub(crate) struct Place<'a, T>(NonNull<T>, PhantomData<&'a mut T>);

impl<T> Place<'_, T> {
    #[inline]
    pub(crate) fn write(self, value: T) {
        // SAFETY: `Out::new` requires a writable pointer. The caller's old value needs no drop.
        unsafe { self.0.write(value) };
    }
}

/// An output that is not NULL, with a reserved slot for the object. A function reserves the slot
/// before it accepts a connection or adopts a descriptor, so storing the object cannot fail.
pub(crate) struct Room<'a, T: Handle>(Place<'a, *mut T>, handle::Reserved<T>);

impl<'a, T: Handle> Out<'a, *mut T> {
    /// Rejects NULL, and fails if the process has no memory for an object.
    #[inline]
    pub(crate) fn reserved(self) -> Result<Room<'a, T>> {
        let place = self.required()?;
        Ok(Room(place, handle::Reserved::new().ok_or_else(no_memory)?))
    }

    /// Stores the object that `make` returns. Rejects NULL, and a process without memory for the
    /// object, before the call of `make`.
    #[inline]
    pub(crate) fn create(self, make: impl FnOnce() -> Result<T>) -> Result<()> {
        let room = self.reserved()?;
        room.put(make()?);
        Ok(())
    }
}

impl<T: Handle> Room<'_, T> {
    /// Stores an object. The object is moved once, to its slot.
    #[inline(always)]
    pub(crate) fn put(self, object: T) {
        self.0.write(self.1.give(|| object));
    }

    /// Constructs an object in its slot and calls `set_up`. If `set_up` fails, the object is dropped
    /// and the output is not written.
    #[inline]
    pub(crate) fn try_put(
        self,
        make: impl FnOnce() -> T,
        set_up: impl FnOnce(&T) -> Result<()>,
    ) -> Result<()> {
        self.0.write(self.1.try_give(make, set_up)?);
        Ok(())
    }
}

#[cold]
pub(crate) fn no_memory() -> Error {
    Error::new(ErrorKind::NoMemory, NO_OPERATION)
}

/// An array that the function fills.
pub(crate) struct OutArray<'a, T> {
    first: *mut T,
    cap: usize,
    name: &'static str,
    call: PhantomData<&'a mut T>,
}

impl<T> OutArray<'_, T> {
    /// # Safety
    /// `first` points to `cap` writable elements during the call, or `first` is NULL or `cap` is 0.
    #[inline]
    pub(crate) unsafe fn new(first: *mut T, cap: usize, name: &'static str) -> Self {
        OutArray { first, cap, name, call: PhantomData }
    }

    /// Rejects NULL for an array that has elements.
    pub(crate) fn required(self) -> Result<Self> {
        if self.cap > 0 && self.first.is_null() { Err(null(self.name)) } else { Ok(self) }
    }

    /// Stores the first values. The array has room for `cap`; the others are dropped.
    pub(crate) fn write(self, values: impl IntoIterator<Item = T>) {
        if self.first.is_null() {
            return;
        }
        for (at, value) in values.into_iter().take(self.cap).enumerate() {
            // SAFETY: `new` requires `cap` writable elements, and `at` is below `cap`.
            unsafe { self.first.add(at).write(value) };
        }
    }
}

/// A structure that the caller passes with its size and the function fills.
pub(crate) struct Structure<'a, T> {
    pointer: *mut T,
    size: usize,
    call: PhantomData<&'a mut T>,
}

impl<T: Versioned> Structure<'_, T> {
    /// # Safety
    /// `pointer` is NULL, or it points to `size` writable bytes during the call.
    #[inline]
    pub(crate) unsafe fn new(pointer: *mut T, size: usize) -> Self {
        Structure { pointer, size, call: PhantomData }
    }

    /// Rejects NULL and a size that no version of the structure has.
    #[inline]
    pub(crate) fn checked(self) -> Result<Self> {
        if self.pointer.is_null() {
            return Err(null("out"));
        }
        T::check_size(self.size, "size")?;
        Ok(self)
    }

    /// The pointer and the size, for a function that writes the members itself.
    #[cfg(feature = "datagram")]
    #[inline]
    pub(crate) fn parts(&self) -> (*mut T, usize) {
        (self.pointer, self.size)
    }

    /// Fills the members that the caller's version of the structure has, and zeroes the members
    /// that only a later version has.
    pub(crate) fn fill(self, value: &T) -> Result<()>
    where
        T: Copy,
    {
        let Structure { pointer, size, .. } = self.checked()?;
        let (out, known) = (pointer.cast::<u8>(), size.min(size_of::<T>()));
        // SAFETY: `value` has `known` readable bytes. `new` requires `size` writable bytes, which
        // are those of another object. A C structure has no invalid byte.
        unsafe {
            std::ptr::copy_nonoverlapping(std::ptr::from_ref(value).cast::<u8>(), out, known);
            std::ptr::write_bytes(out.add(known), 0, size - known);
        }
        Ok(())
    }
}

/// A structure that the caller passes with its size and the function reads.
#[cfg(feature = "diag")]
pub(crate) struct StructureIn<'a, T> {
    pointer: *const T,
    size: usize,
    name: &'static str,
    call: PhantomData<&'a T>,
}

#[cfg(feature = "diag")]
impl<T: Versioned + Copy> StructureIn<'_, T> {
    /// # Safety
    /// `pointer` is NULL, or it points to `size` readable bytes during the call. Every value of the
    /// members of `T` is valid.
    pub(crate) unsafe fn new(pointer: *const T, size: usize, name: &'static str) -> Self {
        StructureIn { pointer, size, name, call: PhantomData }
    }

    /// The structure. Members that the caller's version does not have are 0.
    pub(crate) fn get(self) -> Result<T> {
        if self.pointer.is_null() {
            return Err(null(self.name));
        }
        T::check_size(self.size, "size")?;
        let mut value = MaybeUninit::<T>::zeroed();
        let (from, to) = (self.pointer.cast::<u8>(), value.as_mut_ptr().cast::<u8>());
        // SAFETY: `new` requires `size` readable bytes, and `value` has at least as many as are
        // copied. Every value of its members is valid, and also 0.
        unsafe {
            std::ptr::copy_nonoverlapping(from, to, self.size.min(size_of::<T>()));
            Ok(value.assume_init())
        }
    }
}

/// A structure that the function reads and whose first member is its size. It may be of an earlier or
/// a later version.
pub(crate) struct SizedIn<'a, T> {
    pointer: *const T,
    name: &'static str,
    call: PhantomData<&'a T>,
}

impl<T: Versioned + Copy> SizedIn<'_, T> {
    /// The largest structure that a later version may have.
    const MAX: usize = 64 * size_of::<usize>();

    /// # Safety
    /// `pointer` is NULL, or its first member is a readable `usize` during the call and states how
    /// many bytes of the structure are readable. Every value of the members of `T` is valid.
    #[inline]
    pub(crate) unsafe fn new(pointer: *const T, name: &'static str) -> Self {
        SizedIn { pointer, name, call: PhantomData }
    }

    /// The structure. Members that the caller's version does not have are 0.
    pub(crate) fn get(self) -> Result<T> {
        let (name, most) = (self.name, Self::MAX);
        if self.pointer.is_null() {
            return Err(null(name));
        }
        // SAFETY: `new` requires a readable first member of this type, and the pointer is not NULL.
        let size = unsafe { self.pointer.cast::<usize>().read() };
        if size != size_of::<T>() {
            T::check_size(size, &format!("{name}.size"))?;
            if size > most {
                return Err(invalid(format!(
                    "{name}.size is {size}, more than {most}: pass its sizeof"
                )));
            }
        }
        let known = size.min(size_of::<T>());
        let from = self.pointer.cast::<u8>();
        let mut value = MaybeUninit::<T>::zeroed();
        // SAFETY: `new` requires `size` readable bytes, which are not those of the local variable.
        // `known` bytes are at most as many as either has. Every value of the members is valid, and
        // also 0.
        let (value, unknown) = unsafe {
            std::ptr::copy_nonoverlapping(from, value.as_mut_ptr().cast(), known);
            (value.assume_init(), slice::from_raw_parts(from.add(known), size - known))
        };
        if unknown.iter().any(|byte| *byte != 0) {
            let what =
                format!("{name} has a member that this version of the library does not know");
            return Err(Error::new(ErrorKind::Unsupported, NO_OPERATION).detail(what));
        }
        Ok(value)
    }
}

/// Bytes that the function reads.
pub(crate) struct Bytes<'a>(*const u8, usize, PhantomData<&'a [u8]>);

impl<'a> Bytes<'a> {
    /// # Safety
    /// `buf` points to `len` bytes that do not change during the call, or `len` is 0.
    #[inline]
    pub(crate) unsafe fn new<T>(buf: *const T, len: usize) -> Self {
        Bytes(buf.cast(), len, PhantomData)
    }

    #[inline]
    pub(crate) fn get(self) -> Result<&'a [u8]> {
        let Bytes(buf, len, _) = self;
        if buf.is_null() {
            return if len == 0 { Ok(&[]) } else { Err(null("buf")) };
        }
        check_len(len)?;
        // SAFETY: `new` requires `len` readable bytes, and `buf` is not NULL.
        Ok(unsafe { slice::from_raw_parts(buf, len) })
    }
}

/// A buffer that the function fills.
pub(crate) struct BytesMut<'a>(*mut u8, usize, PhantomData<&'a mut [u8]>);

impl<'a> BytesMut<'a> {
    /// # Safety
    /// `buf` points to `cap` bytes that nothing else uses during the call, or `cap` is 0.
    #[inline]
    pub(crate) unsafe fn new<T>(buf: *mut T, cap: usize) -> Self {
        BytesMut(buf.cast(), cap, PhantomData)
    }

    #[inline]
    pub(crate) fn get(self) -> Result<&'a mut [u8]> {
        let BytesMut(buf, cap, _) = self;
        if cap == 0 {
            return Ok(&mut []);
        }
        if buf.is_null() {
            return Err(null("buf"));
        }
        check_len(cap)?;
        // SAFETY: `new` requires `cap` writable bytes for this call alone, and `buf` is not NULL.
        // The library does not read a byte of the buffer before it has written that byte.
        Ok(unsafe { slice::from_raw_parts_mut(buf, cap) })
    }

    /// As [`get`](BytesMut::get), and rejects a buffer without bytes.
    #[inline]
    pub(crate) fn not_empty(self) -> Result<&'a mut [u8]> {
        if self.1 == 0 { Err(no_capacity()) } else { self.get() }
    }
}

#[cold]
fn no_capacity() -> Error {
    invalid("the buffer is empty (cap is 0): it needs at least one byte")
}

/// A string that ends with NUL.
pub(crate) struct Text<'a> {
    pointer: *const c_char,
    name: &'static str,
    call: PhantomData<&'a CStr>,
}

impl<'a> Text<'a> {
    /// # Safety
    /// `pointer` is NULL, or it points to a string that ends with NUL and does not change during
    /// the call.
    #[inline]
    pub(crate) unsafe fn new(pointer: *const c_char, name: &'static str) -> Self {
        Text { pointer, name, call: PhantomData }
    }

    /// The bytes before the NUL, in any encoding.
    pub(crate) fn bytes(self) -> Result<&'a [u8]> {
        if self.pointer.is_null() {
            return Err(null(self.name));
        }
        // SAFETY: `new` requires a string that ends with NUL, and the pointer is not NULL.
        Ok(unsafe { CStr::from_ptr(self.pointer) }.to_bytes())
    }

    pub(crate) fn get(self) -> Result<&'a str> {
        let name = self.name;
        let bytes = self.bytes()?;
        if bytes.is_ascii() {
            // SAFETY: ASCII is UTF-8, and most endpoints and names are ASCII.
            return Ok(unsafe { std::str::from_utf8_unchecked(bytes) });
        }
        std::str::from_utf8(bytes).map_err(|_| invalid(format!("{name} is not UTF-8")))
    }

    /// The text, or `None` for NULL.
    pub(crate) fn optional(self) -> Result<Option<&'a str>> {
        if self.pointer.is_null() { Ok(None) } else { self.get().map(Some) }
    }

    pub(crate) fn endpoint(self) -> Result<Endpoint> {
        self.get()?.parse::<Endpoint>().map_err(|e| e.during(NO_OPERATION))
    }

    /// The endpoint, or `None` for NULL.
    pub(crate) fn optional_endpoint(self) -> Result<Option<Endpoint>> {
        if self.pointer.is_null() { Ok(None) } else { self.endpoint().map(Some) }
    }

    /// The address of a numeric endpoint or of a Unix socket, or `None` for NULL.
    #[cfg(feature = "datagram")]
    pub(crate) fn address(self) -> Result<Option<Address>> {
        let address = |to: Endpoint| Address::try_from(&to).map_err(|e| e.during(NO_OPERATION));
        self.optional_endpoint()?.map(address).transpose()
    }
}

/// A buffer that the function fills with text.
pub(crate) struct TextOut<'a> {
    buf: BytesMut<'a>,
    required_size: Optional<'a, usize>,
}

impl TextOut<'_> {
    /// # Safety
    /// As for [`BytesMut::new`]; `required_size` is NULL, or it is writable during the call.
    #[inline]
    pub(crate) unsafe fn new(buf: *mut c_char, cap: usize, required_size: *mut usize) -> Self {
        // SAFETY: the caller meets the requirements of both constructors.
        unsafe {
            TextOut { buf: BytesMut::new(buf, cap), required_size: Optional::new(required_size) }
        }
    }

    /// Rejects NULL for a buffer that has bytes. A function calls this before it looks for the text.
    pub(crate) fn required(self) -> Result<Self> {
        let BytesMut(buf, cap, _) = self.buf;
        if cap > 0 && buf.is_null() { Err(null("buf")) } else { Ok(self) }
    }

    /// Stores the text and its NUL if there is room for all of it, and the required size in any
    /// case.
    pub(crate) fn write(self, text: impl Display) -> Result<()> {
        let text = c_string(text);
        let text = text.as_bytes_with_nul();
        self.required_size.write(text.len());
        let buf = self.buf.get()?;
        let cap = buf.len();
        match buf.get_mut(..text.len()) {
            Some(space) => space.copy_from_slice(text),
            None => {
                let what = format!("the text needs {} bytes, and cap is {cap}", text.len());
                return Err(Error::new(ErrorKind::TooLong, NO_OPERATION).detail(what));
            }
        }
        Ok(())
    }
}

/// An array that the function reads.
pub(crate) struct Array<'a, T> {
    first: *const T,
    count: usize,
    name: &'static str,
    call: PhantomData<&'a [T]>,
}

impl<'a, T> Array<'a, T> {
    /// # Safety
    /// `first` points to `count` elements that do not change during the call, or `count` is 0. A
    /// pointer in an element meets the requirements for an argument of its kind: a buffer has the
    /// bytes that the element states, a string ends with NUL.
    #[inline]
    pub(crate) unsafe fn new(first: *const T, count: usize, name: &'static str) -> Self {
        Array { first, count, name, call: PhantomData }
    }

    pub(crate) fn get(self) -> Result<&'a [T]> {
        let Array { first, count, name, .. } = self;
        if count == 0 {
            return Ok(&[]);
        }
        check_count(name, count, size_of::<T>())?;
        if first.is_null() {
            return Err(null(name));
        }
        // SAFETY: `new` requires `count` elements, and `first` is not NULL.
        Ok(unsafe { slice::from_raw_parts(first, count) })
    }
}

/// An array of structures that later versions extend. The caller passes the size of one.
#[cfg(feature = "datagram")]
pub(crate) struct Items<'a, T> {
    first: *mut T,
    count: usize,
    size: usize,
    call: PhantomData<&'a mut T>,
}

#[cfg(feature = "datagram")]
impl<T: Versioned> Items<'_, T> {
    /// # Safety
    /// `first` points to `count` items of `size` bytes each, which nothing else uses during the
    /// call, or `count` is 0. They are writable if the function writes them. A buffer of an item
    /// has the bytes that the item states, and nothing else uses it if the function writes it.
    #[inline]
    pub(crate) unsafe fn new(first: *mut T, count: usize, size: usize) -> Self {
        // A function reads and writes all members. After a member was added, it must not touch the
        // members that the caller's version does not have.
        const { assert!(T::SIZES.len() == 1) };
        Items { first, count, size, call: PhantomData }
    }

    /// Rejects NULL and a size that no version has.
    #[inline]
    pub(crate) fn required(self) -> Result<Self> {
        T::check_size(self.size, "size")?;
        check_count("items", self.count, self.size)?;
        if self.count > 0 && self.first.is_null() { Err(null("items")) } else { Ok(self) }
    }

    /// The first items.
    pub(crate) fn at_most(self, max: usize) -> Self {
        Items { count: self.count.min(max), ..self }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    #[inline]
    pub(crate) fn item_size(&self) -> usize {
        self.size
    }

    #[inline]
    pub(crate) fn item(&self, at: usize) -> *mut T {
        debug_assert!(at < self.count);
        // SAFETY: `new` requires `count` items of `size` bytes, and `at` is below `count`.
        unsafe { self.first.byte_add(at * self.size) }
    }
}

/// Converts the elements of an array.
fn collect<'a, T, U>(array: &'a [T], convert: impl Fn(&'a T) -> Result<U>) -> Result<Vec<U>> {
    let mut list = Vec::new();
    list.try_reserve_exact(array.len()).map_err(|_| no_memory())?;
    for element in array {
        list.push(convert(element)?);
    }
    Ok(list)
}

/// On Windows the standard library panics if a slice is longer than the system accepts.
#[inline(always)]
fn short_enough(len: usize) -> Result<()> {
    if len > SLICE_LEN_MAX {
        return Err(invalid(format!("a buffer of the array is longer than {SLICE_LEN_MAX} bytes")));
    }
    Ok(())
}

impl<'a> Array<'a, keepsock_slice> {
    pub(crate) fn slices(self) -> Result<Vec<IoSlice<'a>>> {
        // SAFETY: `Array::new` requires that `buf` points to `len` readable bytes.
        let bytes = |s: &keepsock_slice| unsafe { Bytes::new(s.buf, s.len) }.get();
        collect(self.get()?, |s| {
            bytes(s).and_then(|b| short_enough(b.len()).map(|()| IoSlice::new(b)))
        })
    }
}

impl<'a> Array<'a, keepsock_buffer> {
    pub(crate) fn buffers(self) -> Result<Vec<IoSliceMut<'a>>> {
        // SAFETY: `Array::new` requires that `buf` points to `cap` writable bytes, and that the
        // buffers of two elements do not overlap.
        let bytes = |b: &keepsock_buffer| unsafe { BytesMut::new(b.buf, b.cap) }.get();
        collect(self.get()?, |b| {
            bytes(b).and_then(|b| short_enough(b.len()).map(|()| IoSliceMut::new(b)))
        })
    }
}

impl Array<'_, *const c_char> {
    pub(crate) fn endpoints(self) -> Result<Vec<Endpoint>> {
        // SAFETY: `Array::new` requires strings that end with NUL.
        let endpoint = |text: &_| unsafe { Text::new(*text, "endpoint") }.endpoint();
        collect(self.get()?, endpoint)
    }
}

impl<'a> Array<'a, keepsock_fd> {
    /// The descriptors, which stay the caller's.
    pub(crate) fn descriptors(self) -> Result<Vec<Borrowed<'a>>> {
        // SAFETY: `Array::new` requires descriptors that stay open during the call.
        collect(self.get()?, |fd| unsafe { borrow(fd) })
    }
}

/// An address; `family` 0 is not permitted.
pub(crate) struct AddressIn<'a> {
    pointer: *const keepsock_address,
    name: &'static str,
    call: PhantomData<&'a ()>,
}

impl AddressIn<'_> {
    /// # Safety
    /// `pointer` is NULL, or it is readable during the call.
    #[inline]
    pub(crate) unsafe fn new(pointer: *const keepsock_address, name: &'static str) -> Self {
        AddressIn { pointer, name, call: PhantomData }
    }

    pub(crate) fn get(self) -> Result<SocketAddr> {
        if self.pointer.is_null() {
            return Err(null(self.name));
        }
        // SAFETY: `new` requires a readable structure, and the pointer is not NULL.
        let address = unsafe { self.pointer.read() };
        let known = address_from_c(&address)?;
        known.ok_or_else(|| invalid(format!("{} has no address: its family is 0", self.name)))
    }

    /// The address, or `None` for NULL.
    #[cfg(feature = "datagram")]
    pub(crate) fn optional(self) -> Result<Option<SocketAddr>> {
        if self.pointer.is_null() { Ok(None) } else { self.get().map(Some) }
    }
}

/// A descriptor that a function adopts if it succeeds.
pub(crate) struct Adopted(keepsock_fd);

impl Adopted {
    /// # Safety
    /// `fd` is not open, or it is open and belongs to the caller. The caller does not use it after
    /// the function has succeeded.
    #[inline]
    pub(crate) unsafe fn new(fd: keepsock_fd) -> Self {
        Adopted(fd)
    }

    /// Calls `make` with the descriptor. If `make` fails and returns the descriptor, it stays open
    /// and the caller's.
    pub(crate) fn adopt<T>(
        self,
        make: impl FnOnce(Owned) -> std::result::Result<T, (Owned, Error)>,
    ) -> Result<T> {
        #[cfg(unix)]
        let owned = {
            use std::os::fd::FromRawFd;
            if self.0 < 0 {
                return Err(invalid("fd is negative"));
            }
            // SAFETY: `new` requires a descriptor that belongs to the caller, and nothing else owns it.
            unsafe { std::os::fd::OwnedFd::from_raw_fd(self.0) }
        };
        #[cfg(windows)]
        let owned = {
            use std::os::windows::io::FromRawSocket;
            if self.0 == usize::MAX {
                return Err(invalid("fd is INVALID_SOCKET"));
            }
            // SAFETY: `new` requires a socket that belongs to the caller, and nothing else owns it.
            unsafe { std::os::windows::io::OwnedSocket::from_raw_socket(self.0 as _) }
        };
        make(owned).map_err(|(owned, error)| {
            into_fd(owned);
            error
        })
    }
}

/// The number of a descriptor, which belongs to the caller from then on.
pub(crate) fn into_fd(owned: Owned) -> keepsock_fd {
    #[cfg(unix)]
    return std::os::fd::IntoRawFd::into_raw_fd(owned);
    #[cfg(windows)]
    return std::os::windows::io::IntoRawSocket::into_raw_socket(owned) as keepsock_fd;
}

/// The number of a descriptor, which stays the library's.
pub(crate) fn fd_of(borrowed: Borrowed<'_>) -> keepsock_fd {
    #[cfg(unix)]
    return std::os::fd::AsRawFd::as_raw_fd(&borrowed);
    #[cfg(windows)]
    return std::os::windows::io::AsRawSocket::as_raw_socket(&borrowed) as keepsock_fd;
}

/// As [`fd_of`], of a socket that keepsock has lent.
pub(crate) fn fd_of_socket(borrowed: &crate::BorrowedSocket<'_>) -> keepsock_fd {
    #[cfg(unix)]
    return fd_of(std::os::fd::AsFd::as_fd(borrowed));
    #[cfg(windows)]
    return fd_of(std::os::windows::io::AsSocket::as_socket(borrowed));
}

/// A file that the caller lends for the call: a descriptor, or a HANDLE on Windows.
///
/// # Safety
/// As for [`borrow`].
pub(crate) unsafe fn borrow_file(fd: &keepsock_fd) -> Result<crate::internal::FileRef<'_>> {
    #[cfg(unix)]
    {
        if *fd < 0 {
            return Err(invalid("fd is negative"));
        }
        // SAFETY: the caller meets the requirement of this function, which is the same.
        unsafe { borrow(fd) }
    }
    #[cfg(windows)]
    {
        if matches!(*fd, 0 | usize::MAX) {
            return Err(invalid("fd is NULL or INVALID_HANDLE_VALUE"));
        }
        // SAFETY: the caller keeps the handle open, and it is neither NULL nor INVALID_HANDLE_VALUE.
        Ok(unsafe { std::os::windows::io::BorrowedHandle::borrow_raw(*fd as _) })
    }
}

/// A descriptor that the caller lends for the call. The result lives as long as the number does,
/// which is the argument of the C function or an element of its array.
///
/// # Safety
/// A descriptor of this number stays open while the result lives. A number that is not open is
/// permitted: the kernel rejects it (EBADF).
pub(crate) unsafe fn borrow(fd: &keepsock_fd) -> Result<Borrowed<'_>> {
    #[cfg(unix)]
    {
        if *fd < 0 {
            return Err(invalid("a descriptor of the array is negative"));
        }
        // SAFETY: the caller keeps the descriptor open, and it is not -1.
        Ok(unsafe { std::os::fd::BorrowedFd::borrow_raw(*fd) })
    }
    #[cfg(windows)]
    {
        if *fd == usize::MAX {
            return Err(invalid("a descriptor of the array is INVALID_SOCKET"));
        }
        // SAFETY: the caller keeps the socket open, and it is not INVALID_SOCKET.
        Ok(unsafe { std::os::windows::io::BorrowedSocket::borrow_raw(*fd as _) })
    }
}
