//! `--disk FILE[,SETTING …]`.

use std::path::PathBuf;
use std::str::FromStr;

use vnet_virtio::blk::device::MOST_QUEUES;
use vnet_virtio::limit::Limits;

/// How an image holds a disk's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One by one.
    Raw,
    /// In clusters, as they are needed.
    Qcow2,
}

/// Where an image's backing file may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backing {
    /// In the image's own directory.
    Beside,
    /// Wherever the image says: it is trusted.
    Anywhere,
}

/// A disk that is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskConfig {
    /// The image.
    pub path: PathBuf,
    /// Its format.
    pub format: Format,
    /// Whether somebody has said so, rather than the file's name.
    pub is_format_given: bool,
    /// Whether the guest may only read it.
    pub is_read_only: bool,
    /// What the guest knows it by.
    pub serial: Option<String>,
    /// Queues; as many as processors, up to a bound, if None.
    pub queues: Option<u16>,
    /// Where backing files may be.
    pub backing: Backing,
    /// What it may do in a second.
    pub limits: Limits,
}

/// Bytes of a serial id.
const SERIAL: usize = 20;

impl FromStr for DiskConfig {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let path: PathBuf = parts.next().unwrap_or_default().into();
        if path.as_os_str().is_empty() {
            return Err("a disk needs its image's file: write FILE[,ro] …".to_owned());
        }
        let is_qcow2 = path.extension().is_some_and(|extension| extension == "qcow2");
        let mut disk = Self {
            format: if is_qcow2 { Format::Qcow2 } else { Format::Raw },
            path,
            is_format_given: false,
            is_read_only: false,
            serial: None,
            queues: None,
            backing: Backing::Beside,
            limits: Limits::default(),
        };
        parts.try_for_each(|part| disk.set(part))?;
        Ok(disk)
    }
}

impl DiskConfig {
    fn set(&mut self, setting: &str) -> Result<(), String> {
        let (key, value) = setting.split_once('=').unwrap_or((setting, ""));
        match key {
            "ro" if value.is_empty() => self.is_read_only = true,
            "format" => {
                self.is_format_given = true;
                self.format = match value {
                    "raw" => Format::Raw,
                    "qcow2" => Format::Qcow2,
                    _ => return Err(format!("`{value}` is no format: use raw or qcow2")),
                };
            }
            "serial" if (1..=SERIAL).contains(&value.len()) && is_printable(value) => {
                self.serial = Some(value.to_owned());
            }
            "serial" => {
                return Err(format!("`{value}` is no serial id: use 1 to {SERIAL} ASCII letters"));
            }
            "queues" => self.queues = Some(number(key, value, 1..=MOST_QUEUES.into())? as u16),
            "backing" if value == "anywhere" => self.backing = Backing::Anywhere,
            "bps" => self.limits.bytes = number(key, value, 1..=u64::MAX)?,
            "iops" => self.limits.operations = number(key, value, 1..=u64::MAX)?,
            "burst" => self.limits.burst_ms = number(key, value, 1..=600_000)?,
            _ => {
                return Err(format!(
                    "`{setting}` is no setting of a disk: use ro, format=raw|qcow2, serial=ID, \
                     queues=N, backing=anywhere, bps=BYTES, iops=N or burst=MS"
                ));
            }
        }
        Ok(())
    }
}

fn is_printable(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A number in `range`, perhaps with K, M, G or T behind it.
///
/// # Errors
/// It is none, or out of bounds.
pub(crate) fn number(
    key: &str,
    text: &str,
    range: std::ops::RangeInclusive<u64>,
) -> Result<u64, String> {
    let (digits, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let shift = match unit {
        "" => 0,
        "K" | "k" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(format!("{key}={text}: use a number, with K, M, G or T behind it")),
    };
    let number = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    number.filter(|number| range.contains(number)).ok_or_else(|| {
        format!("{key}={text} is out of bounds: use {} to {}", range.start(), range.end())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read() {
        let text = "/a/b.img,ro,format=qcow2,serial=d1,queues=2,backing=anywhere,bps=10M,iops=9";
        let disk: DiskConfig = text.parse().unwrap();
        assert_eq!((disk.format, disk.is_read_only, disk.queues), (Format::Qcow2, true, Some(2)));
        assert_eq!(disk.limits, Limits { bytes: 10 << 20, operations: 9, burst_ms: 0 });
        assert_eq!((disk.serial.as_deref(), disk.backing), (Some("d1"), Backing::Anywhere));
    }

    #[test]
    fn the_name_tells_the_format_where_nothing_else_does() {
        assert_eq!("x.qcow2".parse::<DiskConfig>().unwrap().format, Format::Qcow2);
        assert_eq!("x.img".parse::<DiskConfig>().unwrap().format, Format::Raw);
    }

    #[test]
    fn rubbish_is_refused_with_the_rule() {
        for (text, rule) in [
            ("", "needs its image"),
            ("x,rw", "no setting of a disk"),
            ("x,format=vmdk", "use raw or qcow2"),
            ("x,serial=", "1 to 20"),
            ("x,queues=0", "1 to 16"),
            ("x,bps=fast", "K, M, G or T"),
            ("x,bps=99999999999T", "out of bounds"),
        ] {
            let error = text.parse::<DiskConfig>().unwrap_err();
            assert!(error.contains(rule), "{text}: {error}");
        }
    }
}
