//! Fields of bytes that anybody may have written, and what may be wrong with them.

/// What is wrong with a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::backend) enum HeaderError {
    NotQcow2,
    Damaged(String),
    Unsupported(String),
}

/// What gets into messages and logs.
pub(super) fn text(bytes: &[u8]) -> Result<String, HeaderError> {
    let text = std::str::from_utf8(bytes).ok().filter(|text| !text.contains(char::is_control));
    text.map(str::to_owned).ok_or_else(|| HeaderError::Damaged("a name that is no text".to_owned()))
}

/// The number at that place, big-endian.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Result<u32, HeaderError> {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.map(|field| u32::from_be_bytes(*field)).ok_or_else(short)
}

/// The same, of eight bytes.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> Result<u64, HeaderError> {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.map(|field| u64::from_be_bytes(*field)).ok_or_else(short)
}

fn short() -> HeaderError {
    HeaderError::Damaged("the header is cut off".to_owned())
}
