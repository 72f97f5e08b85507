//! Not part of the guest: compiled by `build.rs` to learn how the compiler names a panic handler.
#![no_std]

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
