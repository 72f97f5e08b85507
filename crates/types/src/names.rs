//! Names: of networks, domains (virtual machines), interfaces, and in the DNS.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not the name that it was given as.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no {what}: {rule}")]
pub struct NameError {
    text: String,
    what: &'static str,
    rule: &'static str,
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(NameError { text: text.to_owned(), what: $what, rule: $rule })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_object_name(text: &str) -> bool {
    (1..=48).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b))
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
}

name_type!(
    /// The name of a network, as in `default`. It is also the stem of its definition file.
    NetworkName,
    "network name",
    "use 1 to 48 of a-z, 0-9, - and _, with a letter or a digit first",
    is_object_name
);

name_type!(
    /// The name of a domain (a virtual machine), as in `web`. It is also the stem of its
    /// definition file and the guest's name in the DNS, hence one DNS label.
    DomainName,
    "domain name",
    "use 1 to 48 of a-z, 0-9 and -, with a letter or a digit first and last",
    |text| is_object_name(text) && is_label(text)
);

name_type!(
    /// The name of a network interface as the kernel takes it (`dev_valid_name`), less the
    /// characters that nft and sysctl paths read as their own.
    IfName,
    "interface name",
    "use 1 to 15 of a-z, A-Z, 0-9, -, _ and ., but not `.`, `..`, `all` or `default`",
    |text| {
        (1..=15).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
            && !matches!(text, "." | ".." | "all" | "default")
            && !text.starts_with('-')
    }
);

name_type!(
    /// A host or domain name in the DNS in presentation form without the last dot: labels of
    /// letters, digits and inner hyphens (RFC 1123 §2.1), 253 characters at most.
    DnsName,
    "DNS name",
    "use labels of 1 to 63 letters, digits and inner hyphens, joined by dots, 253 characters at most",
    |text| text.len() <= 253 && text.split('.').all(is_label)
);

name_type!(
    /// The name of a record in a network's domain, in presentation form without the last dot, or
    /// `@` for the domain itself. Labels may have underscores, as those of services do (RFC 2782).
    RecordName,
    "name of a record",
    "use `@` for the domain itself, or labels of 1 to 63 letters, digits, inner hyphens and \
     underscores, joined by dots, 253 characters at most",
    |text| {
        let is_label = |text: &str| is_label(&text.replace('_', "x"));
        text == RecordName::DOMAIN || (text.len() <= 253 && text.split('.').all(is_label))
    }
);

impl RecordName {
    /// The domain itself.
    pub const DOMAIN: &str = "@";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_follow_the_kernel() {
        for good in ["virbr0", "eth0.100", "a", "abcdefghijklmno"] {
            assert!(good.parse::<IfName>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "all", "a/b", "a b", "abcdefghijklmnop", "br\"0", "-x", "eth:0"]
        {
            assert!(bad.parse::<IfName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn network_names_are_safe_as_file_names() {
        assert!("lab_2-b".parse::<NetworkName>().is_ok());
        for bad in ["", "../x", "A", "-x", "_x", "a.b", "a/b", "a\0b"] {
            assert!(bad.parse::<NetworkName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn domain_names_are_dns_labels() {
        assert!("web-1".parse::<DomainName>().is_ok());
        for bad in ["web_1", "web-", "Web"] {
            assert!(bad.parse::<DomainName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn dns_names_are_labels_joined_by_dots() {
        assert!("web.default.vnet".parse::<DnsName>().is_ok());
        for bad in ["", ".", "a..b", "a.", "-a.b", "a_b"] {
            assert!(bad.parse::<DnsName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_error_names_the_text_and_the_rule() {
        let error = "a b".parse::<IfName>().unwrap_err().to_string();
        assert!(error.starts_with("`a b` is no interface name: use 1 to 15"), "{error}");
    }
}
