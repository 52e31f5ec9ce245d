//! Files in memory.

use programs::memory::{PAGE, RW, page, peek, poke, unmap};
use programs::process::{Baton, close, ending, spawn, wait};
use programs::sys::value;
use programs::{check, memory, say, sys};

use super::create;

pub fn file() {
    let contents: Vec<u8> = (0..3 * PAGE + 100).map(|n| (n / 64) as u8).collect();
    let fd = create(c"mapped", &contents);
    let len = 4 * PAGE;
    let map = sys!(SYS_mmap, 0, len, RW, libc::MAP_PRIVATE, fd, 0).unwrap() as *mut u8;
    let second =
        sys!(SYS_mmap, 0, PAGE, libc::PROT_READ, libc::MAP_PRIVATE, fd, PAGE).unwrap() as *mut u8;
    close(fd);
    let seen: Vec<u8> = (0..contents.len()).map(|at| peek(map.wrapping_add(at))).collect();
    say!("same: {}, {:x}", seen == contents, memory::checksum(&seen));
    say!("beyond its end: {}", peek(map.wrapping_add(contents.len())));
    say!("from page 1: {}", peek(second) == contents[PAGE]);
    poke(map.wrapping_add(PAGE), 0xff);
    say!(
        "private: {} {}",
        peek(map.wrapping_add(PAGE)),
        std::fs::read("mapped").unwrap() == contents
    );
    let status = ending(|| {
        poke(map, 0xee);
        i32::from(peek(map.wrapping_add(PAGE)) != 0xff)
    });
    say!("{status} {}", peek(map));
    unmap(map, len);
    unmap(second, PAGE);
    std::fs::remove_file("mapped").unwrap();
}

/// All shared mappings of a file show what is written to it, by whatever way. `MAPPED_FILE` may name one that is there
/// already, of four pages at least.
pub fn shared_file() {
    let name = std::env::var("MAPPED_FILE").unwrap_or_else(|_| {
        std::fs::write("mapped", vec![b'-'; 4 * PAGE]).unwrap();
        "mapped".into()
    });
    let name = std::ffi::CString::new(name).unwrap();
    let open = |flags: i32| sys!(SYS_open, name.as_ptr(), flags).unwrap() as i32;
    let (fd, reader) = (open(libc::O_RDWR), open(libc::O_RDONLY));
    let mapped = |fd: i32, protection: i32| {
        sys!(SYS_mmap, 0, 4 * PAGE, protection, libc::MAP_SHARED, fd, 0).unwrap() as *mut u8
    };
    let maps = [mapped(fd, RW), mapped(fd, libc::PROT_READ), mapped(reader, libc::PROT_READ)];
    let seen = |number: usize| maps.map(|base| char::from(peek(page(base, number))));
    check!((0..4).all(|number| seen(number) == ['-'; 3]), "not what is in the file");
    sys!(SYS_pwrite64, fd, b"w".as_ptr(), 1, PAGE).unwrap();
    poke(page(maps[0], 2), b'm');
    say!("{:?} {:?}", seen(1), seen(2));
    sys!(SYS_mprotect, maps[1], 4 * PAGE, RW).unwrap();
    poke(page(maps[1], 3), b'p');
    let mut byte = [0u8];
    sys!(SYS_pread64, reader, &mut byte, 1, 3 * PAGE).unwrap();
    say!("{:?} {:?}", seen(3), char::from(byte[0]));
    maps.iter().for_each(|&base| unmap(base, 4 * PAGE));
    close(fd);
    close(reader);
    sys!(SYS_unlink, name.as_ptr()).unwrap();
}

/// A deleted file lives on as long as it is mapped.
pub fn deleted_file() {
    let fd = create(c"deleted", &vec![7; 2 * PAGE]);
    let map =
        sys!(SYS_mmap, 0, 2 * PAGE, libc::PROT_READ, libc::MAP_PRIVATE, fd, 0).unwrap() as *mut u8;
    sys!(SYS_unlink, c"deleted".as_ptr()).unwrap();
    close(fd);
    say!("{} {}", peek(map), peek(page(map, 1)));
    unmap(map, 2 * PAGE);
    say!("write only: {}", {
        let fd =
            sys!(SYS_open, c"wo".as_ptr(), libc::O_CREAT | libc::O_WRONLY, 0o600).unwrap() as i32;
        let result = sys!(SYS_mmap, 0, PAGE, libc::PROT_READ, libc::MAP_PRIVATE, fd, 0);
        close(fd);
        std::fs::remove_file("wo").unwrap();
        value(result)
    });
}

/// What a file no longer has its mappings, of whatever process, no longer have; when it is as long again they show
/// what it has then.
pub fn cut_off() {
    let fd = create(c"cut", &vec![7; 4 * PAGE]);
    let mapped = |flags: i32| sys!(SYS_mmap, 0, 4 * PAGE, RW, flags, fd, 0).unwrap() as *mut u8;
    let (shared, private) = (mapped(libc::MAP_SHARED), mapped(libc::MAP_PRIVATE));
    for number in 0..4 {
        check!(peek(page(shared, number)) == 7, "page {number}");
    }
    poke(page(private, 3), 8);
    check!(peek(page(private, 2)) == 7, "page 2");
    let in_child = Baton::new();
    let done = Baton::new();
    let child = spawn(|| {
        poke(page(private, 1), 9);
        poke(page(shared, 1), 9);
        in_child.pass();
        done.await_pass();
        let [a, b] = [private, shared].map(|base| peek(page(base, 3)));
        say!("child: {} {} {a} {b}", peek(page(private, 1)), peek(page(shared, 1)));
        0
    });
    in_child.await_pass();
    sys!(SYS_ftruncate, fd, PAGE + 100).unwrap();
    let ends = |address: *mut u8| {
        ending(|| {
            peek(address);
            0
        })
    };
    for base in [shared, private] {
        say!("{}", [0, 1, 2, 3].map(|number| ends(page(base, number)).to_string()).join(", "));
    }
    say!("by a call: {}", value(sys!(SYS_pwrite64, fd, page(shared, 3), 10, 0)));
    sys!(SYS_ftruncate, fd, 4 * PAGE).unwrap();
    say!("{} {}", peek(page(shared, 1).wrapping_add(99)), peek(page(shared, 1).wrapping_add(100)));
    say!("{} {}", peek(page(private, 3)), peek(page(shared, 3)));
    poke(page(shared, 3), 5);
    let mut byte = 0u8;
    sys!(SYS_pread64, fd, &mut byte, 1, 3 * PAGE).unwrap();
    say!("{byte} {}", peek(page(private, 3)));
    done.pass();
    say!("{}", wait(child));
    close(sys!(SYS_open, c"cut".as_ptr(), libc::O_RDWR | libc::O_TRUNC).unwrap() as i32);
    say!("{} {}", ends(shared), ends(private));
    for base in [shared, private] {
        unmap(base, 4 * PAGE);
    }
    close(fd);
    std::fs::remove_file("cut").unwrap();
}
