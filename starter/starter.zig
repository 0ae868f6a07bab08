//! Puts the agent together from its pieces, and becomes it.
//!
//! The pieces (`agent.0` … `agent.9`, one gzip stream cut up) lie in the folder that this
//! program was started from, by its argv[0]; the agent goes to `../run/agent` beside it.
//! No libc and no allocation: it runs in any image, as any user, on a read-only root.

const std = @import("std");
const linux = std.os.linux;
const flate = std.compress.flate;

// The agent is 2 MB packed; ten pieces of a ConfigMap could hold 10.
var packed_agent: [16 << 20]u8 = undefined;
var window: [flate.max_window_len]u8 = undefined;
var chunk: [1 << 16]u8 = undefined;
var path_buffer: [4096]u8 = undefined;
var run_buffer: [4096]u8 = undefined;

const path_too_long = "the folder's name is too long";

fn fail(what: []const u8, rc: usize) noreturn {
    say("towline starter: ");
    say(what);
    if (isError(rc)) {
        var digits: [20]u8 = undefined;
        say(" (errno ");
        say(decimal(0 -% rc, &digits));
        say(")");
    }
    say("\n");
    linux.exit(127);
}

fn say(text: []const u8) void {
    _ = linux.write(2, text.ptr, text.len);
}

fn decimal(value: usize, digits: *[20]u8) []const u8 {
    var rest = value;
    var at: usize = digits.len;
    while (true) {
        at -= 1;
        digits[at] = '0' + @as(u8, @intCast(rest % 10));
        rest /= 10;
        if (rest == 0) return digits[at..];
    }
}

fn isError(rc: usize) bool {
    return rc > @as(usize, 0) -% 4096;
}

fn errnoIs(rc: usize, wanted: linux.E) bool {
    return isError(rc) and (0 -% rc) == @intFromEnum(wanted);
}

/// `folder ++ name` with the closing zero, in `buffer`.
fn join(buffer: []u8, folder: []const u8, name: []const u8) [*:0]const u8 {
    if (folder.len + name.len + 1 > buffer.len) fail(path_too_long, 0);
    @memcpy(buffer[0..folder.len], folder);
    @memcpy(buffer[folder.len..][0..name.len], name);
    buffer[folder.len + name.len] = 0;
    return @ptrCast(buffer.ptr);
}

/// The folder of argv[0], its last slash included; "" for a bare name.
fn folderOf(program: [*:0]const u8) []const u8 {
    const text = std.mem.span(program);
    var end = text.len;
    while (end > 0 and text[end - 1] != '/') end -= 1;
    return text[0..end];
}

fn readPieces(folder: []const u8) usize {
    var size: usize = 0;
    for (0..10) |number| {
        var name = "agent.0".*;
        name[name.len - 1] = '0' + @as(u8, @intCast(number));
        const fd = linux.open(join(&path_buffer, folder, &name), .{ .ACCMODE = .RDONLY, .CLOEXEC = true }, 0);
        if (isError(fd)) {
            if (number == 0) fail("the agent's first piece cannot be read", fd);
            break;
        }
        while (true) {
            if (size == packed_agent.len) fail("the agent's pieces are too large", 0);
            const n = linux.read(@intCast(fd), packed_agent[size..].ptr, packed_agent.len - size);
            if (isError(n)) fail("a piece of the agent cannot be read", n);
            if (n == 0) break;
            size += n;
        }
        _ = linux.close(@intCast(fd));
    }
    return size;
}

fn inflateInto(out: usize, size: usize) void {
    var input: std.Io.Reader = .fixed(packed_agent[0..size]);
    var inflate: flate.Decompress = .init(&input, .gzip, &window);
    while (true) {
        const n = inflate.reader.readSliceShort(&chunk) catch fail("the agent's pieces are damaged", 0);
        var done: usize = 0;
        while (done < n) {
            const w = linux.write(@intCast(out), chunk[done..].ptr, n - done);
            if (isError(w)) fail("the agent cannot be written: is the disk full?", w);
            done += w;
        }
        if (n < chunk.len) return;
    }
}

pub fn main(init: std.process.Init.Minimal) noreturn {
    const argv: [*:null]const ?[*:0]const u8 = @ptrCast(init.args.vector.ptr);
    const envp: [*:null]const ?[*:0]const u8 = @ptrCast(init.environ.block.slice.ptr);
    const folder = folderOf(argv[0] orelse fail("there is no argv[0]", 0));
    const size = readPieces(folder);

    const agent = join(&run_buffer, folder, "../run/agent");
    // A container that was started again finds the old file, which may be running: a new one.
    _ = linux.unlink(agent);
    const out = linux.open(agent, .{ .ACCMODE = .WRONLY, .CREAT = true, .EXCL = true, .CLOEXEC = true }, 0o755);
    if (isError(out)) fail("../run/agent cannot be made", out);
    inflateInto(out, size);
    _ = linux.close(@intCast(out));
    const rc = linux.execve(agent, argv, envp);

    // Not executable there: a volume mounted noexec. Runtime monitors take a program that
    // is in memory only for malware, so this comes second.
    if (!errnoIs(rc, .ACCES)) fail("the agent cannot be executed", rc);
    const memory = linux.memfd_create("towline-agent", linux.MFD.CLOEXEC);
    if (isError(memory)) fail("the agent may be executed neither from ../run nor from memory", rc);
    inflateInto(memory, size);
    const again = linux.execveat(@intCast(memory), "", argv, envp, .{ .EMPTY_PATH = true, .SYMLINK_NOFOLLOW = false });
    fail("the agent may be executed neither from ../run nor from memory", again);
}
