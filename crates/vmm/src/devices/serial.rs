//! COM1: a 16550, whose output goes to a file.

use std::fs::File;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::EventFd;

/// The interrupt line, an event that KVM turns into one.
#[derive(Debug)]
pub struct Line(pub EventFd);

impl Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// Output that collects here until the end of the access.
#[derive(Debug, Default)]
struct Collected(Vec<u8>);

impl Write for Collected {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The serial port.
#[derive(Debug)]
pub struct SerialPort {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    uart: Serial<Line, NoEvents, Collected>,
    output: Option<File>,
    first_byte: Option<Instant>,
}

impl SerialPort {
    /// A port whose output goes to `output`, or nowhere, and which interrupts through `line`.
    #[must_use]
    pub fn new(line: EventFd, output: Option<File>) -> Self {
        let uart = Serial::new(Line(line), Collected::default());
        Self { inner: Mutex::new(Inner { uart, output, first_byte: None }) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guest reads or writes the register at `offset`, once or, with a repeated string
    /// instruction, many times.
    pub fn access(&self, offset: u16, width: usize, is_read: bool, data: &mut [u8]) {
        let mut inner = self.lock();
        let offset = offset as u8 & 7;
        for item in data.chunks_exact_mut(width) {
            if is_read {
                item.fill(0xff);
                item[0] = inner.uart.read(offset);
            } else {
                // The interrupt's event cannot fail short of 2^64 interrupts that nobody took.
                let _ = inner.uart.write(offset, item[0]);
            }
        }
        inner.flush();
    }

    /// Gives the guest `input` to read; returns how many bytes there was room for.
    pub fn input(&self, input: &[u8]) -> usize {
        // The one error is that there is no room.
        self.lock().uart.enqueue_raw_bytes(input).unwrap_or(0)
    }

    /// When the guest wrote its first byte.
    #[must_use]
    pub fn first_byte(&self) -> Option<Instant> {
        self.lock().first_byte
    }
}

impl Inner {
    fn flush(&mut self) {
        let collected = &mut self.uart.writer_mut().0;
        if collected.is_empty() {
            return;
        }
        self.first_byte.get_or_insert_with(Instant::now);
        if let Some(file) = &mut self.output {
            let mut rest = &collected[..];
            while !rest.is_empty() {
                match file.write(rest) {
                    Ok(count) if count > 0 => rest = &rest[count..],
                    // A signal means that the machine stops, and an error that nobody reads: in
                    // both cases the guest must not wait for ever.
                    _ => break,
                }
            }
        }
        collected.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};

    use super::*;

    fn port() -> (SerialPort, File) {
        let file = tempfile::tempfile().unwrap();
        (SerialPort::new(EventFd::new(0).unwrap(), Some(file.try_clone().unwrap())), file)
    }

    #[test]
    fn a_string_instruction_writes_all_its_bytes() {
        let (port, mut file) = port();
        port.access(0, 1, false, &mut b"hello".to_vec());
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        assert!(port.first_byte().is_some());
    }

    #[test]
    fn the_transmitter_is_always_ready() {
        let (port, _file) = port();
        let mut status = [0];
        port.access(5, 1, true, &mut status);
        assert_eq!(status[0] & 0x60, 0x60);
    }

    #[test]
    fn input_is_there_to_be_read() {
        let (port, _file) = port();
        assert_eq!(port.input(b"x"), 1);
        let mut byte = [0];
        port.access(0, 1, true, &mut byte);
        assert_eq!(&byte, b"x");
    }
}
