"""Shoal's commands for gdb: the fibers of all cores and their stacks, live or from a core file.

    (gdb) source /usr/local/share/shoal/gdb/shoal.py
    (gdb) shoal fibers              all fibers of all cores; -bt: with their stacks, like ones once
    (gdb) shoal fibers -core 1      those of one core
    (gdb) shoal fiber-bt NAME       the stack of each fiber of that name
    (gdb) shoal fiber-bt 0x7f...    the stack of the fiber at that address

Reads offsets from the table shoal_gdb_layout in the library, so that no types are needed: a
release build with -g1, or one with its symbol table alone, will do. A parked fiber's frames come
from gdb's own unwinder: the registers that the switch has saved are put below a frame that stands
for the selected thread's innermost one. Nothing of the program is run or changed.
"""

import struct

import gdb
import gdb.unwinder

FRAMES_MAX = 200
LIVE_MAX = 10_000_000  # a list longer than this is broken
STATES = ["free", "ready", "running", "parked", "done"]

# What the switch pushed, from `sp` upward (runtime/fiber_switch.S), and the stack pointer behind.
SWITCHES = {
    1: (["r15", "r14", "r13", "r12", "rbx", "rbp", "rip"], 56, "rip", "rsp"),
    2: (
        [f"x{n}" for n in range(19, 31)] + [f"d{n}" for n in range(8, 16)],
        160,
        "pc",
        "sp",
    ),
}


def read_bytes(address, size):
    return bytes(gdb.selected_inferior().read_memory(address, size))


def read_word(address):
    return struct.unpack("<Q", read_bytes(address, 8))[0]


def read_u32(address):
    return struct.unpack("<I", read_bytes(address, 4))[0]


def read_text(address, limit=200):
    if address == 0:
        return ""
    text = b""
    while len(text) < limit:
        byte = read_bytes(address + len(text), 1)
        if byte == b"\0":
            break
        text += byte
    return text.decode("utf-8", "replace")


def symbol_address(name):
    try:
        return int(gdb.parse_and_eval(f"(unsigned long)&{name}"))
    except gdb.error:
        raise gdb.GdbError(
            f"no symbol {name}: is this a program that uses Shoal, with its symbol table?"
        ) from None


def function_at(address):
    """The function at a code address, as a name; the bare number where there is none."""
    text = gdb.execute(f"info symbol {address:#x}", to_string=True)
    return f"{address:#x}" if text.startswith("No symbol") else text.split()[0]


class Layout:
    def __init__(self):
        self.at = {}
        address = symbol_address("shoal_gdb_layout")
        while name := read_text(address, 28):
            self.at[name] = read_u32(address + 28)
            address += 32
        if self.at.get("version") != 1:
            raise gdb.GdbError(f"this helper does not know layout {self.at.get('version')}")

    def word(self, base, field):
        return read_word(base + self.at[field])

    def text(self, base, field):
        return read_text(self.word(base, field))


class Fiber:
    def __init__(self, layout, core, address):
        self.layout = layout
        self.address = address
        self.core = read_u32(core + layout.at["core.id"])
        self.sp = layout.word(address, "fiber.sp")
        self.name = layout.text(address, "fiber.name")
        state = read_bytes(address + layout.at["fiber.state"], 1)[0]
        self.state = STATES[state] if state < len(STATES) else f"state {state}"
        self.cancelled = read_bytes(address + layout.at["fiber.cancelled"], 1) != b"\0"
        self.fn = layout.word(address, "fiber.fn")
        self.low = layout.word(address, "fiber.stack")
        self.high = self.low + layout.word(address, "fiber.stack_bytes")
        group = layout.word(address, "fiber.group")
        self.group = read_text(group + layout.at["sched_group.name"]) if group != 0 else ""

    def waits_for(self):
        if self.state != "parked":
            return ""
        future = self.layout.word(self.address, "fiber.waiting_future")
        if future != 0:
            return f"future {future:#x}"
        what = self.layout.text(self.address, "fiber.waits_for")
        if what == "join":
            other = self.layout.word(self.address, "fiber.wait_ctx")
            return f'join of fiber "{self.layout.text(other, "fiber.name")}" ({other:#x})'
        return what

    def head(self):
        words = [f'core {self.core}  {self.address:#x}  "{self.name}": {self.state}']
        if self.cancelled:
            words.append("cancelled")
        if what := self.waits_for():
            words.append(f"waits for {what}")
        if self.group:
            words.append(f'group "{self.group}"')
        return ", ".join(words) + f"  [{function_at(self.fn)}]"

    def has_stack(self):
        return self.state in ("ready", "parked")

    def stack(self):
        """Its frames, the innermost first: pairs of an address (0: a remark) and a line of text."""
        if self.state == "running":
            return running_stack(self)
        if not self.has_stack():
            return []
        if self.layout.at["switch"] not in SWITCHES:
            return [(0, "(this build switches by ucontext: its stacks cannot be walked)")]
        return parked_stack(self)


def all_fibers(wanted_core=None):
    layout = Layout()
    launch = read_word(symbol_address("shoal_launch_current"))
    if launch == 0:
        return
    cores = read_u32(launch + layout.at["launch.fleet.cores"])
    table = layout.word(launch, "launch.fleet.core")
    for index in range(cores):
        core = read_word(table + 8 * index)
        if core == 0 or wanted_core not in (None, index):
            continue
        head = core + layout.at["core.fibers.live"]
        node = read_word(head)
        for _ in range(LIVE_MAX):
            if node == head:
                break
            yield Fiber(layout, core, node - layout.at["fiber.node"])
            node = read_word(node)


# ---- Stacks ----


class FrameId:
    def __init__(self, sp, pc):
        self.sp = sp
        self.pc = pc


class ParkedUnwinder(gdb.unwinder.Unwinder):
    """Makes the innermost frame of the selected thread return into a parked fiber, while asked."""

    def __init__(self):
        super().__init__("shoal-parked-fiber")
        self.fiber = None
        self.innermost = None

    def __call__(self, pending):
        if self.fiber is None:
            return None
        registers, size, pc_name, sp_name = SWITCHES[self.fiber.layout.at["switch"]]
        if int(pending.read_register(sp_name)) != self.innermost:
            return None
        sp = self.fiber.sp
        unwind = pending.create_unwind_info(FrameId(gdb.Value(sp), gdb.Value(0)))
        word = gdb.lookup_type("long")
        for index, name in enumerate(registers):
            if name.startswith("d"):
                continue  # a part of v8 to v15: no frame is found by them
            value = gdb.Value(read_word(sp + 8 * index)).cast(word)
            unwind.add_saved_register(name, value)
            if name == "x30":
                unwind.add_saved_register(pc_name, value)
        unwind.add_saved_register(sp_name, gdb.Value(sp + size).cast(word))
        return unwind


def describe_frame(number, frame):
    name = frame.name() or "??"
    line = frame.find_sal()
    place = f" at {line.symtab.filename}:{line.line}" if line.symtab is not None else ""
    return f"#{number:<2} {frame.pc():#018x} in {name} ({', '.join(arguments(frame))}){place}"


def arguments(frame):
    """As gdb prints them; none where the debug information has no variables."""
    try:
        block = frame.block()
    except RuntimeError:
        return []
    while block is not None and block.function is None:
        block = block.superblock
    if block is None:
        return []
    found = []
    for symbol in block:
        if symbol.is_argument:
            try:
                found.append(f"{symbol.name}={symbol.value(frame).format_string(max_elements=40)}")
            except gdb.error:
                found.append(f"{symbol.name}=?")
    return found


def frames_from(frame):
    lines = []
    while frame is not None and len(lines) < FRAMES_MAX:
        lines.append((frame.pc(), describe_frame(len(lines), frame)))
        frame = frame.older()
    return lines


def print_stack(stack):
    for _, line in stack:
        print(f"    {line}")


def parked_stack(fiber):
    registers, _, _, _ = SWITCHES[fiber.layout.at["switch"]]
    pc = "rip" if "rip" in registers else "x30"
    if read_word(fiber.sp + 8 * registers.index(pc)) == 0:
        return [(0, "(not in this core file: gcore leaves out a mapping with a guard page inside)")]
    newest = gdb.newest_frame()
    unwinder.innermost = int(newest.read_register(SWITCHES[fiber.layout.at["switch"]][3]))
    unwinder.fiber = fiber
    try:
        gdb.invalidate_cached_frames()
        return frames_from(gdb.newest_frame().older())
    finally:
        unwinder.fiber = None
        gdb.invalidate_cached_frames()


def running_stack(fiber):
    """The frames of the thread that is on the fiber's stack now."""
    before = gdb.selected_thread()
    try:
        for thread in gdb.selected_inferior().threads():
            thread.switch()
            sp = int(gdb.newest_frame().read_register("sp"))
            if fiber.low <= sp < fiber.high:
                return [(0, f"(on thread {thread.num})"), *frames_from(gdb.newest_frame())]
    finally:
        if before is not None:
            before.switch()
    return [(0, "(no thread is on its stack: it is in a signal handler)")]


unwinder = ParkedUnwinder()
gdb.unwinder.register_unwinder(None, unwinder, replace=True)


# ---- Commands ----


class Shoal(gdb.Command):
    """Shoal's fibers: `shoal fibers`, `shoal fiber-bt`."""

    def __init__(self):
        super().__init__("shoal", gdb.COMMAND_STACK, gdb.COMPLETE_NONE, True)


class Fibers(gdb.Command):
    """shoal fibers [-bt] [-core N]: lists the fibers of all cores, or of core N.

With -bt their stacks follow; fibers that stand at the same place are listed together, with the
stack of the first."""

    def __init__(self):
        super().__init__("shoal fibers", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        words = gdb.string_to_argv(argument)
        core = None
        stacks = False
        while words:
            word = words.pop(0)
            if word == "-bt":
                stacks = True
            elif word == "-core" and words and words[0].isdigit():
                core = int(words.pop(0))
            else:
                raise gdb.GdbError("usage: shoal fibers [-bt] [-core N]")
        count = 0
        groups = {}
        for fiber in all_fibers(core):
            count += 1
            if stacks:
                stack = fiber.stack()
                key = tuple(pc for pc, _ in stack)
                groups.setdefault(key, (stack, []))[1].append(fiber.head())
            else:
                print(fiber.head())
        for stack, heads in groups.values():
            for head in heads:
                print(head)
            print_stack(stack)
        print(f"{count} fiber{'' if count == 1 else 's'}")


class FiberBacktrace(gdb.Command):
    """shoal fiber-bt NAME|ADDRESS: prints the stack of a fiber, or of all of that name."""

    def __init__(self):
        super().__init__("shoal fiber-bt", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        words = gdb.string_to_argv(argument)
        if len(words) != 1:
            raise gdb.GdbError("usage: shoal fiber-bt NAME|ADDRESS")
        found = False
        for fiber in all_fibers():
            if words[0] not in (fiber.name, f"{fiber.address:#x}"):
                continue
            found = True
            print(fiber.head())
            print_stack(fiber.stack())
        if not found:
            raise gdb.GdbError(f'no fiber is named or lies at "{words[0]}"')


Shoal()
Fibers()
FiberBacktrace()
