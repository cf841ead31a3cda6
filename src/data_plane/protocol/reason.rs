//! Reason codes (MQTT 5.0, 2.4) and what becomes of them in v3.

/// A v5 reason code. The names are the standard's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs)] // the standard's own names
pub enum ReasonCode {
    /// Success; as DISCONNECT: normal disconnection; as SUBACK: granted QoS 0.
    #[default]
    Success = 0x00,
    GrantedQoS1 = 0x01,
    GrantedQoS2 = 0x02,
    DisconnectWithWill = 0x04,
    NoMatchingSubscribers = 0x10,
    NoSubscriptionExisted = 0x11,
    ContinueAuthentication = 0x18,
    ReAuthenticate = 0x19,
    UnspecifiedError = 0x80,
    MalformedPacket = 0x81,
    ProtocolError = 0x82,
    ImplementationSpecificError = 0x83,
    UnsupportedProtocolVersion = 0x84,
    ClientIdentifierNotValid = 0x85,
    BadUserNameOrPassword = 0x86,
    NotAuthorized = 0x87,
    ServerUnavailable = 0x88,
    ServerBusy = 0x89,
    Banned = 0x8A,
    ServerShuttingDown = 0x8B,
    BadAuthenticationMethod = 0x8C,
    KeepAliveTimeout = 0x8D,
    SessionTakenOver = 0x8E,
    TopicFilterInvalid = 0x8F,
    TopicNameInvalid = 0x90,
    PacketIdentifierInUse = 0x91,
    PacketIdentifierNotFound = 0x92,
    ReceiveMaximumExceeded = 0x93,
    TopicAliasInvalid = 0x94,
    PacketTooLarge = 0x95,
    MessageRateTooHigh = 0x96,
    QuotaExceeded = 0x97,
    AdministrativeAction = 0x98,
    PayloadFormatInvalid = 0x99,
    RetainNotSupported = 0x9A,
    QoSNotSupported = 0x9B,
    UseAnotherServer = 0x9C,
    ServerMoved = 0x9D,
    SharedSubscriptionsNotSupported = 0x9E,
    ConnectionRateExceeded = 0x9F,
    MaximumConnectTime = 0xA0,
    SubscriptionIdentifiersNotSupported = 0xA1,
    WildcardSubscriptionsNotSupported = 0xA2,
}

/// A v3 CONNACK return code (MQTT 3.1.1, 3.2.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ConnectReturnCode {
    /// Connection accepted.
    Accepted = 0,
    /// Unacceptable protocol version.
    UnacceptableProtocolVersion = 1,
    /// Identifier rejected.
    IdentifierRejected = 2,
    /// Server unavailable: also every quota and rate (PRODUCT 3).
    ServerUnavailable = 3,
    /// Bad user name or password.
    BadUserNameOrPassword = 4,
    /// Not authorized: also banned.
    NotAuthorized = 5,
}

impl ReasonCode {
    /// Whether it tells of a failure.
    pub const fn is_error(self) -> bool {
        self as u8 >= 0x80
    }

    /// The return code a v3 client gets in CONNACK (PRODUCT 3).
    pub const fn connect_return_code(self) -> ConnectReturnCode {
        match self {
            Self::Success => ConnectReturnCode::Accepted,
            Self::UnsupportedProtocolVersion => ConnectReturnCode::UnacceptableProtocolVersion,
            Self::ClientIdentifierNotValid => ConnectReturnCode::IdentifierRejected,
            Self::BadUserNameOrPassword => ConnectReturnCode::BadUserNameOrPassword,
            Self::NotAuthorized | Self::Banned | Self::BadAuthenticationMethod => {
                ConnectReturnCode::NotAuthorized
            }
            _ => ConnectReturnCode::ServerUnavailable,
        }
    }
}
