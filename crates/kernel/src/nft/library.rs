//! The few functions of libnftables that we call (libnftables(3)). The library is loaded when it
//! is needed: netd starts without, and can say which package is missing.

use std::error::Error;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::marker::PhantomData;
use std::ptr::NonNull;

use libloading::Library;

use super::NftError;

/// The name under which every distribution has it: the ABI's version, not the package's.
const NAME: &str = "libnftables.so.1";
/// `NFT_CTX_DEFAULT` (nftables/libnftables.h).
const DEFAULT: u32 = 0;
/// `NFT_CTX_OUTPUT_JSON`: input and output are JSON (libnftables-json(5)).
const OUTPUT_JSON: c_uint = 1 << 4;

/// `struct nft_ctx *`.
type Pointer = *mut c_void;
type Run = unsafe extern "C" fn(Pointer, *const c_char) -> c_int;
type Text = unsafe extern "C" fn(Pointer) -> *const c_char;

/// A context of the library, which holds a netlink socket of the network namespace in which it was
/// opened. It stays on the thread that opened it.
pub(super) struct Context {
    pointer: NonNull<c_void>,
    run: Run,
    output: Text,
    errors: Text,
    free: unsafe extern "C" fn(Pointer),
    /// The functions above are in it.
    _library: Library,
    _not_send: PhantomData<*const ()>,
}

impl Context {
    /// Loads the library and opens a context that reads and writes JSON.
    ///
    /// # Errors
    /// The library or one of the functions is missing, or the context gets no socket.
    pub(super) fn open() -> Result<Self, NftError> {
        let missing = |error: libloading::Error| {
            NftError::Missing(error.source().map_or_else(|| error.to_string(), ToString::to_string))
        };
        // SAFETY: the initialisers of libnftables, and of the libraries that it brings along,
        // only set up data of their own; it is made to be loaded by programs.
        let library = unsafe { Library::new(NAME) }.map_err(missing)?;
        // SAFETY: the types are those of nftables/libnftables.h, which the ABI's version in the
        // library's name stands for; each pointer is kept no longer than the library.
        unsafe {
            let new: unsafe extern "C" fn(u32) -> Pointer =
                *library.get(b"nft_ctx_new\0").map_err(missing)?;
            let set_flags: unsafe extern "C" fn(Pointer, c_uint) =
                *library.get(b"nft_ctx_output_set_flags\0").map_err(missing)?;
            let buffers = ["nft_ctx_buffer_output\0", "nft_ctx_buffer_error\0"];
            let functions = (
                *library.get(b"nft_run_cmd_from_buffer\0").map_err(missing)?,
                *library.get(b"nft_ctx_get_output_buffer\0").map_err(missing)?,
                *library.get(b"nft_ctx_get_error_buffer\0").map_err(missing)?,
                *library.get(b"nft_ctx_free\0").map_err(missing)?,
            );
            let pointer = NonNull::new(new(DEFAULT)).ok_or(NftError::Socket)?;
            let (run, output, errors, free) = functions;
            let context = Self {
                pointer,
                run,
                output,
                errors,
                free,
                _library: library,
                _not_send: PhantomData,
            };
            set_flags(pointer.as_ptr(), OUTPUT_JSON);
            for name in buffers {
                let buffer: unsafe extern "C" fn(Pointer) -> c_int =
                    *context._library.get(name.as_bytes()).map_err(missing)?;
                if buffer(pointer.as_ptr()) != 0 {
                    return Err(NftError::Missing("it has no memory for what it says".to_owned()));
                }
            }
            Ok(context)
        }
    }

    /// Runs the commands, all or none, and returns what is printed on them.
    ///
    /// # Errors
    /// What the library says where it or the kernel refuses.
    pub(super) fn run(&mut self, commands: &str) -> Result<String, String> {
        let Ok(commands) = CString::new(commands) else {
            return Err("a command has a zero byte in it".to_owned());
        };
        let context = self.pointer.as_ptr();
        // SAFETY: the context is open, only this thread has it, and the text ends in a zero byte.
        let status = unsafe { (self.run)(context, commands.as_ptr()) };
        // Both are asked for each time: what is read is gone from its buffer.
        // SAFETY: the context is open and keeps both texts in buffers.
        let (output, errors) = unsafe { ((self.output)(context), (self.errors)(context)) };
        // SAFETY: both end in a zero byte, and hold until the context is used again.
        let (output, errors) = unsafe { (text(output), text(errors)) };
        if status == 0 { Ok(output) } else { Err(errors) }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the context is open, and nobody has it any more.
        unsafe { (self.free)(self.pointer.as_ptr()) }
    }
}

/// # Safety
/// `text` is null, or ends in a zero byte and is left alone until this returns.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_library_cannot_read_is_refused_in_its_words() {
        let mut context = Context::open().unwrap();
        let said = context.run("{\"nftables\": [{\"frobnicate\": {}}]}").unwrap_err();
        assert!(said.contains("Error: Parsing command"), "{said}");
        assert!(context.run("a\0b").is_err());
        // The error is not said again.
        assert_eq!(context.run("{\"nftables\": []}"), Ok(String::new()));
    }
}
