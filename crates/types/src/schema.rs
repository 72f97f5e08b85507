//! Schemas of the types that are more than one value in memory, and one text in JSON; all others
//! derive theirs.

use std::borrow::Cow;

use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::{AddrRange, AddrRange6, DhcpOptions, Limit, PortRange, Target, Upstream};

fn text(description: &str, example: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some(description))
        .examples([example])
}

macro_rules! schema {
    ($name:ident, $schema:expr) => {
        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                $schema.into()
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($name))
            }
        }
    };
}

schema!(
    AddrRange,
    text("Addresses from the first to the last, both included.", "192.168.122.2-192.168.122.254")
);
schema!(
    AddrRange6,
    text(
        "IPv6 addresses from the first to the last, both included.",
        "fd12:3456:789a::1000-fd12:3456:789a::1fff"
    )
);
schema!(
    Limit,
    text(
        "Ethernet frames in a second, in bits or bytes, and how much may pass at once.",
        "10mbit/64kbyte"
    )
);
schema!(
    DhcpOptions,
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .description(Some(
            "Options by name, as in `ntp-servers` with a list of addresses, or by number, with a \
             typed text as in `hex:0a0b`; an option with an empty list is not sent."
        ))
        .additional_properties(Some(AdditionalProperties::FreeForm(true)))
);
schema!(
    Upstream,
    text(
        "A server to ask: `ADDR[:PORT]`, or over TLS `tls://ADDR[:PORT][#NAME]`.",
        "tls://192.0.2.53#dns.example"
    )
);
schema!(Target, text("Where a forward leads: `NAME|ADDR[:PORT[-PORT]]`.", "web:80"));
schema!(
    PortRange,
    OneOfBuilder::new()
        .description(Some("One port, or several that follow each other."))
        .item(
            ObjectBuilder::new()
                .schema_type(Type::Integer)
                .minimum(Some(1))
                .maximum(Some(u16::MAX))
        )
        .item(text("The first and the last one.", "8000-8009"))
);
