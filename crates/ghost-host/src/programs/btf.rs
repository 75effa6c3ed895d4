//! Where the running kernel keeps the fields of its structures, from its own type information (BTF).
//!
//! Only what offsets need: structs, unions, typedefs and qualifiers. Every read is bounds-checked; a truncated or hostile
//! input yields "not found" or [`Malformed`]. Format: Documentation/bpf/btf.rst of the kernel.

use std::collections::HashMap;

const MAGIC: u16 = 0xeb9f;

const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_RESTRICT: u32 = 11;
const KIND_TYPE_TAG: u32 = 18;

/// How deep members may be nested, so that types that refer to themselves end.
const MAX_DEPTH: u32 = 16;

/// The input is not BTF, or is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not valid BTF")]
pub struct Malformed;

/// Type information, parsed as far as needed.
pub struct Btf {
    data: Vec<u8>,
    strings: usize,
    /// Position in `data` of each type, by its id.
    types: Vec<usize>,
    /// Ids of the structs that have a name.
    structs: HashMap<Vec<u8>, usize>,
}

impl Btf {
    /// Finds the types in `data`, the contents of `/sys/kernel/btf/vmlinux`.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(data: Vec<u8>) -> Result<Self, Malformed> {
        if data.first_chunk().map(|magic| u16::from_ne_bytes(*magic)) != Some(MAGIC) {
            return Err(Malformed);
        }
        let word = |at| word_at(&data, at).ok_or(Malformed);
        let header = word(4)? as usize;
        let mut at = header + word(8)? as usize;
        let end = at + word(12)? as usize;
        let strings = header + word(16)? as usize;
        // Type 0 is void.
        let mut types = vec![usize::MAX];
        let mut named = Vec::new();
        while at < end {
            let info = word(at + 4)?;
            let kind = kind_of(info);
            if kind == KIND_STRUCT {
                named.push(types.len());
            }
            types.push(at);
            at += 12 + trailing_bytes(kind, info & 0xffff).ok_or(Malformed)?;
        }
        let mut btf = Self { data, strings, types, structs: HashMap::new() };
        for id in named {
            let name = btf.name(btf.types[id]).to_vec();
            if !name.is_empty() {
                btf.structs.entry(name).or_insert(id);
            }
        }
        Ok(btf)
    }

    /// Offset in bytes of a field: `pid_namespace`, `ns.inum`. Members of anonymous members are found like the kernel's C
    /// finds them. None if there is no such field, or it is a bit field.
    pub fn offset(&self, structure: &str, path: &str) -> Option<u32> {
        let mut id = *self.structs.get(structure.as_bytes())?;
        let mut bits = 0;
        for field in path.split('.') {
            let (offset, width, member) = self.member(id, field.as_bytes(), 0)?;
            if width != 0 {
                return None;
            }
            bits += offset;
            id = member;
        }
        (bits % 8 == 0).then_some(bits / 8)
    }

    /// Offset in bits of a bit field that is one bit wide, counted as a little-endian machine does. None if there is no such
    /// field, or it is something else.
    pub fn bit(&self, structure: &str, field: &str) -> Option<u32> {
        let id = *self.structs.get(structure.as_bytes())?;
        let (offset, width, _) = self.member(id, field.as_bytes(), 0)?;
        (width == 1).then_some(offset)
    }

    /// Size in bytes of a struct.
    pub fn size(&self, structure: &str) -> Option<u32> {
        word_at(&self.data, *self.types.get(*self.structs.get(structure.as_bytes())?)? + 8)
    }

    /// Offset in bits, width of a bit field (else 0) and type of the member `field` of the struct or union `id`.
    fn member(&self, id: usize, field: &[u8], depth: u32) -> Option<(u32, u32, usize)> {
        let at = self.resolve(id)?;
        let info = word_at(&self.data, at + 4)?;
        if depth > MAX_DEPTH || !matches!(kind_of(info), KIND_STRUCT | KIND_UNION) {
            return None;
        }
        let has_bit_sizes = info >> 31 != 0;
        for index in 0..(info & 0xffff) as usize {
            let member = at + 12 + 12 * index;
            let type_id = word_at(&self.data, member + 4)? as usize;
            let raw = word_at(&self.data, member + 8)?;
            let (offset, bit_size) = if has_bit_sizes { (raw & 0xff_ffff, raw >> 24) } else { (raw, 0) };
            let name = self.name(member);
            if name == field {
                return Some((offset, bit_size, type_id));
            }
            if name.is_empty()
                && let Some((inner, width, type_id)) = self.member(type_id, field, depth + 1)
            {
                return Some((offset + inner, width, type_id));
            }
        }
        None
    }

    /// Position of a type behind its typedefs and qualifiers.
    fn resolve(&self, mut id: usize) -> Option<usize> {
        for _ in 0..MAX_DEPTH {
            let at = *self.types.get(id)?;
            match kind_of(word_at(&self.data, at.checked_add(4)?)?) {
                KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_TYPE_TAG => {
                    id = word_at(&self.data, at + 8)? as usize;
                }
                _ => return Some(at),
            }
        }
        None
    }

    /// The name whose string offset stands at `at`; empty if there is none.
    fn name(&self, at: usize) -> &[u8] {
        let offset = word_at(&self.data, at).unwrap_or(0) as usize;
        let rest = self.data.get(self.strings + offset..).unwrap_or(&[]);
        rest.split(|&byte| byte == 0).next().unwrap_or(&[])
    }
}

fn kind_of(info: u32) -> u32 {
    info >> 24 & 0x1f
}

fn word_at(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..)?.first_chunk().map(|word| u32::from_ne_bytes(*word))
}

/// Bytes that follow the 12 common ones of a type; none for a kind that this code does not know.
fn trailing_bytes(kind: u32, count: u32) -> Option<usize> {
    let count = count as usize;
    Some(match kind {
        // INT, VAR, DECL_TAG
        1 | 14 | 17 => 4,
        KIND_ARRAY => 12,
        // STRUCT, UNION, DATASEC, ENUM64
        KIND_STRUCT | KIND_UNION | 15 | 19 => 12 * count,
        // ENUM, FUNC_PROTO
        6 | 13 => 8 * count,
        // PTR, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FLOAT, TYPE_TAG
        2 | 7 | 8 | 9 | 10 | 11 | 12 | 16 | 18 => 0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct outer { int a; struct { const inner_t b; }; }`, `typedef struct inner { int x; int y; } inner_t`,
    /// `struct bits { int x; int a: 1; int b: 1; int y: 2; }`.
    fn sample() -> Vec<u8> {
        let strings = b"\0int\0outer\0inner\0inner_t\0bits\0a\0b\0x\0y\0";
        let name = |text: &str| {
            let wanted: Vec<u8> = [b"\0", text.as_bytes(), b"\0"].concat();
            u32::try_from(strings.windows(wanted.len()).position(|window| window == wanted).expect("name") + 1)
                .expect("small")
        };
        let mut types = Vec::new();
        types.extend([name("int"), 1 << 24, 4, 32]); // 1
        types.extend([name("inner"), KIND_STRUCT << 24 | 2, 8, name("x"), 1, 0, name("y"), 1, 32]); // 2
        types.extend([name("inner_t"), KIND_TYPEDEF << 24, 2]); // 3
        types.extend([0, KIND_CONST << 24, 3]); // 4
        types.extend([0, KIND_STRUCT << 24 | 1, 8, name("b"), 4, 0]); // 5
        types.extend([name("outer"), KIND_STRUCT << 24 | 2, 12, name("a"), 1, 0, 0, 5, 32]); // 6
        let widths = 1 << 31;
        let (one, two) = (1 << 24, 2 << 24);
        types.extend([name("bits"), widths | KIND_STRUCT << 24 | 4, 8, name("x"), 1, 0]); // 7
        types.extend([name("a"), 1, one | 32, name("b"), 1, one | 33, name("y"), 1, two | 34]);
        let types: Vec<u8> = types.iter().flat_map(|word: &u32| word.to_ne_bytes()).collect();
        let mut data = MAGIC.to_ne_bytes().to_vec();
        data.extend([1, 0]);
        let length = u32::try_from(types.len()).expect("small");
        for word in [24, 0, length, length, u32::try_from(strings.len()).expect("small")] {
            data.extend(word.to_ne_bytes());
        }
        data.extend(types);
        data.extend(strings);
        data
    }

    #[test]
    fn finds_fields_through_anonymous_members_and_typedefs() {
        let btf = Btf::parse(sample()).expect("valid");
        assert_eq!(btf.offset("outer", "a"), Some(0));
        assert_eq!(btf.offset("outer", "b"), Some(4));
        assert_eq!(btf.offset("outer", "b.y"), Some(8));
        assert_eq!(btf.offset("outer", "x"), None);
        assert_eq!(btf.offset("nobody", "x"), None);
        assert_eq!(btf.size("outer"), Some(12));
    }

    #[test]
    fn finds_bits() {
        let btf = Btf::parse(sample()).expect("valid");
        assert_eq!((btf.bit("bits", "a"), btf.bit("bits", "b")), (Some(32), Some(33)));
        assert_eq!((btf.bit("bits", "x"), btf.bit("bits", "y"), btf.bit("bits", "z")), (None, None, None));
        assert_eq!((btf.offset("bits", "x"), btf.offset("bits", "a")), (Some(0), None));
    }

    #[test]
    fn damaged_input_is_survived() {
        let good = sample();
        for length in 0..good.len() {
            if let Ok(btf) = Btf::parse(good[..length].to_vec()) {
                btf.offset("outer", "b.y");
            }
        }
        for index in 0..good.len() {
            for value in [0, 0x7f, 0xff] {
                let mut bad = good.clone();
                bad[index] = value;
                if let Ok(btf) = Btf::parse(bad) {
                    btf.offset("outer", "b.y");
                    btf.bit("bits", "b");
                    btf.size("inner");
                }
            }
        }
        assert!(Btf::parse(vec![0; 64]).is_err());
    }
}
