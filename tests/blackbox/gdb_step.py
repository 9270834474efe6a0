"""Run by gdb on tests/test_fiber_switch: at each instruction of a switch, the stack must unwind.

The innermost caller is the function that switches, on whichever of the two stacks it is by now, with
the registers that it had when it left; the outermost one is the test's main or the first frame of a
context.
"""

import gdb

SWITCHES = 30
SAVED = ["rbx", "rbp", "r12", "r13", "r14", "r15"]


def names():
    found = []
    frame = gdb.newest_frame()
    while frame is not None:
        found.append(frame.name())
        frame = frame.older()
    return found


def registers(frame):
    return [int(frame.read_register(name)) for name in SAVED]


def current(name):
    return int(gdb.newest_frame().read_register(name))


class Checks:
    def __init__(self):
        self.left = {}  # registers of a side that has left, by the stack pointer that was saved
        self.count = 0
        self.wrong = 0
        self.compared = 0

    def one_switch(self):
        """From the first instruction of a switch to the first behind it."""
        mine, load = registers(gdb.newest_frame()), current("rsi")
        saved = current("rsp")
        while gdb.newest_frame().name() == "shoal_fiber_switch":
            sp = current("rsp")
            away = not saved - 48 <= sp <= saved
            expected = self.left.get(load) if away else mine
            self.check(names(), expected, away)
            if not away:
                self.left[sp] = mine
            gdb.execute("stepi", to_string=True)

    def check(self, stack, expected, away):
        caller = stack[1] if len(stack) > 1 else None
        if caller == "shoal_fiber_first_frame":
            fine = len(stack) == 2 and away
        elif "main" in stack:
            fine = caller == "shoal_test_switch"
        else:
            fine = stack[1:] == [
                "shoal_test_switch", "give_way", "play_for_ever", "shoal_fiber_first_frame"
            ]
        if fine and expected is not None:
            self.compared += 1
            fine = registers(gdb.newest_frame().older()) == expected
        self.count += 1
        if not fine:
            self.wrong += 1
            print(f"WRONG at {gdb.newest_frame().pc():#x}: {stack}")


gdb.execute("set pagination off")
gdb.execute("set confirm off")
gdb.execute("break *shoal_fiber_switch")
gdb.execute("run", to_string=True)
checks = Checks()
for _ in range(SWITCHES):
    checks.one_switch()
    gdb.execute("continue", to_string=True)
if checks.wrong == 0 and checks.compared > checks.count // 2:
    print(f"ALL RIGHT: {checks.count} instructions")
gdb.execute("kill")
