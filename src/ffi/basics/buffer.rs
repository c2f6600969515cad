//! `keepsock_slice` and `keepsock_buffer`.

use std::ffi::c_void;

/// One of several buffers of keepsock_client_write_slices(): struct iovec for writing.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct keepsock_slice {
    /// The bytes; may be NULL if len is 0.
    pub buf: *const c_void,
    /// The number of bytes.
    pub len: usize,
}

/// One of several buffers of keepsock_client_read_slices(): struct iovec for reading.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct keepsock_buffer {
    /// The buffer; may be NULL if cap is 0.
    pub buf: *mut c_void,
    /// Its size in bytes.
    pub cap: usize,
}
