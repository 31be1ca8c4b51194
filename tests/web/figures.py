"""Interactive figures in Chromium: every control answers to mouse and keyboard. Each check tells what is wrong."""

from collections.abc import Callable

from playwright.sync_api import Locator

CONTROLS = "select, input, button, [tabindex='0']:not(select, input, button)"
ARROWS = ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp")
SHOWN = """figure => JSON.stringify([
    figure.dataset.state,
    [...figure.querySelectorAll("[role=status]")].map(status => status.textContent),
    [...figure.querySelectorAll(".pj-live canvas")].map(canvas => canvas.toDataURL()),
])"""
CHANGED = f"""async (figure, before) => {{
    const shown = {SHOWN};
    for (const end = performance.now() + 800; performance.now() < end; await new Promise(go => setTimeout(go, 20)))
        if (shown(figure) !== before) return true;
    return false;
}}"""
NAMED = """control => (control.ariaLabel || [...(control.labels ?? [])].map(label => label.textContent).join(" ")
    || (control.matches("select, input") ? "" : control.textContent)).trim()"""
SMALL = 24  # pixels; WCAG 2.2, 2.5.8


def controls(figure: Locator) -> list[Locator]:
    """What can be used in a figure now."""
    return [control for control in figure.locator(".pj-live").locator(CONTROLS).all() if control.is_visible()]


def name(control: Locator) -> str:
    """What a screen reader calls a control."""
    return control.evaluate(NAMED)


def answers(figure: Locator, act: Callable[[], None]) -> bool:
    """Whether what a figure shows or says is another than before, soon after an action."""
    before = figure.evaluate(SHOWN)
    act()
    return figure.evaluate(CHANGED, before)


def pause(figure: Locator) -> None:
    """Stop what plays."""
    for button in figure.get_by_role("button", name="Pause", exact=True).all():
        button.click()


def select(figure: Locator, control: Locator) -> list[str]:
    """Another choice, by mouse and by keyboard; the first choice is set again."""
    choices = control.locator("option").count()
    if choices < 2:
        return []
    chosen = control.evaluate("box => box.selectedIndex")
    wrong = []
    if not answers(figure, lambda: control.select_option(index=(chosen + 1) % choices)):
        wrong.append("another choice changes nothing")
    control.select_option(index=chosen)
    control.focus()
    if not answers(figure, lambda: control.press("ArrowUp" if chosen == choices - 1 else "ArrowDown")):
        wrong.append("an arrow key changes nothing")
    control.select_option(index=chosen)
    return wrong


def slider(figure: Locator, control: Locator) -> list[str]:
    """A step by keyboard, and a click on the far side."""
    low, high, value = control.evaluate("range => [Number(range.min), Number(range.max), range.valueAsNumber]")
    if low >= high:
        return []
    wrong = []
    if not answers(figure, lambda: control.press("ArrowLeft" if value == high else "ArrowRight")):
        wrong.append("an arrow key changes nothing")
    box = control.bounding_box()
    far = 0.1 if control.evaluate("range => range.valueAsNumber") > (low + high) / 2 else 0.9
    if not answers(figure, lambda: control.click(position={"x": far * box["width"], "y": box["height"] / 2})):
        wrong.append("a click changes nothing")
    return wrong


def button(figure: Locator, control: Locator) -> list[str]:
    """A click and the Enter key; a button may ask for what is shown already, so sliders are moved before."""
    wrong = []
    for words, act in (("a click", control.click), ("the Enter key", lambda: control.press("Enter"))):
        if control.is_disabled():
            break
        if not answers(figure, act):
            if not (stir(figure) and answers(figure, act)):
                wrong.append(f"{words} changes nothing")
        pause(figure)
    return wrong


def stir(figure: Locator) -> int:
    """Move every slider to its end; how many there are."""
    every = figure.locator(".pj-live input[type=range]:enabled").all()
    for control in every:
        control.press("Home" if control.evaluate("range => range.value === range.max") else "End")
    return len(every)


def other(figure: Locator, control: Locator) -> list[str]:
    """One of many items, such as a dot of a map: an arrow key goes to another."""
    return (
        []
        if any(answers(figure, lambda key=key: control.press(key)) for key in ARROWS)
        else ["no arrow key changes anything"]
    )


def use(figure: Locator, control: Locator) -> list[str]:
    """What is wrong with one control."""
    kind = control.evaluate("control => control.matches('input[type=range]') ? 'range' : control.localName")
    return {"select": select, "range": slider, "button": button, "input": button}.get(kind, other)(figure, control)


def dead(figure: Locator) -> list[str]:
    """Controls that change nothing, by mouse or by keyboard; those that wait for another one come last."""
    pause(figure)
    every = controls(figure)
    if not every:
        return ["no control"]
    now, later = [c for c in every if c.is_enabled()], [c for c in every if c.is_disabled()]
    wrong = [f"{name(control)}: {what}" for control in now for what in use(figure, control)]
    return wrong + [f"{name(c)}: {what}" for c in later if c.is_enabled() for what in use(figure, c)]


def form(figure: Locator) -> list[str]:
    """Controls without a name or too small for a finger, and a figure that says nothing."""
    wrong = []
    for control in controls(figure):
        if not name(control):
            wrong.append(f"no name: {control.evaluate('control => control.outerHTML')[:80]}")
        box = control.bounding_box()
        html = control.evaluate("control => control.ownerSVGElement === null || control.ownerSVGElement === undefined")
        if html and box and min(box["width"], box["height"]) < SMALL:
            wrong.append(f"{name(control)}: {box['width']:.0f} x {box['height']:.0f} pixels, less than {SMALL}")
    if not any(text.strip() for text in figure.locator("[role=status]").all_text_contents()):
        wrong.append("it does not say in words what it shows")
    if not figure.get_attribute("data-state"):
        wrong.append("it has no data-state")
    return wrong


def unreached(figure: Locator) -> list[str]:
    """Controls that the Tab key does not come to."""
    page = figure.page
    every = [control for control in controls(figure) if control.is_enabled()]
    for number, control in enumerate(every):
        control.evaluate("(control, number) => { control.dataset.web = number; }", number)
    figure.evaluate("figure => { figure.tabIndex = -1; figure.focus(); }")
    reached = set()
    for _ in range(len(every) + 3):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.dataset.web"))
    return [f"{name(c)}: the Tab key does not come to it" for n, c in enumerate(every) if str(n) not in reached]


CHECKS = (form, unreached, dead)
