pub mod random;
pub mod terminal;
