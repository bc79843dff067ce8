//! Status codes (draft-ietf-secsh-filexfer-02 §7).

/// How a request ended. Version 3 has these nine; what other servers send besides is kept as
/// its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StatusCode {
    /// Done.
    Ok,
    /// There is no more to read or list.
    Eof,
    /// Nothing stands under the name.
    NoSuchFile,
    /// It is not allowed.
    PermissionDenied,
    /// Anything that has no code of its own.
    Failure,
    /// The packet makes no sense.
    BadMessage,
    /// A client's own: it has no connection.
    NoConnection,
    /// A client's own: its connection went.
    ConnectionLost,
    /// The server does not do this.
    OpUnsupported,
    /// None of version 3.
    Other(u32),
}

/// One row for each code of the draft.
const CODES: [(u32, StatusCode); 9] = [
    (0, StatusCode::Ok),
    (1, StatusCode::Eof),
    (2, StatusCode::NoSuchFile),
    (3, StatusCode::PermissionDenied),
    (4, StatusCode::Failure),
    (5, StatusCode::BadMessage),
    (6, StatusCode::NoConnection),
    (7, StatusCode::ConnectionLost),
    (8, StatusCode::OpUnsupported),
];

impl StatusCode {
    /// The code with this number.
    pub fn from_u32(number: u32) -> Self {
        CODES
            .iter()
            .find(|(known, _)| *known == number)
            .map_or(Self::Other(number), |(_, code)| *code)
    }

    /// Its number on the wire.
    pub fn as_u32(self) -> u32 {
        if let Self::Other(number) = self {
            return number;
        }
        CODES
            .iter()
            .find(|(_, code)| *code == self)
            .map_or(4, |(number, _)| *number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_draft_and_others_keep_their_number() {
        assert_eq!(StatusCode::from_u32(8), StatusCode::OpUnsupported);
        assert_eq!(StatusCode::BadMessage.as_u32(), 5);
        assert_eq!(StatusCode::from_u32(11), StatusCode::Other(11));
        for number in 0..20 {
            assert_eq!(StatusCode::from_u32(number).as_u32(), number);
        }
    }
}
