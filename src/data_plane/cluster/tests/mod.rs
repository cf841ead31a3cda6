//! Scripts of `(time, input) → what the clients see`, in virtual time.
