"""The command `openjepa`: every verb of `openjepa.app.verbs` by its name, with settings as `key=value`.

Nothing heavy is imported before a verb really runs, so help is instant. Errors are one line; `--debug` gives the
traceback. Exit codes: 0 done, 1 a run that failed, 2 something to correct in what was asked, 130 interrupted.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from openjepa.app import text
from openjepa.app.guard import guarded

JSON = Annotated[bool, typer.Option("--json", help="Print what the verb returned, as JSON.")]
DEBUG = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
HELP = Annotated[bool, typer.Option("--help", "-h", help="Show this message and the settings, and stop.")]
TINY = Annotated[bool, typer.Option("--tiny", help="Seconds instead of minutes: shows the course, not the numbers.")]
RUN = Annotated[Path | None, typer.Argument(metavar="RUN", help="A run folder.", show_default=False)]
SETTINGS = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings.", show_default=False)]

PLAIN: dict[str, Any] = {"rich_markup_mode": None, "pretty_exceptions_enable": False, "no_args_is_help": True}
app = typer.Typer(
    name="openjepa",
    help="Joint-embedding predictive architectures: train them, see whether they are healthy, measure their worth.",
    context_settings={"help_option_names": ["--help", "-h"]},
    add_completion=False,
    **PLAIN,
)
data_app = typer.Typer(help="Look at data before a run.", **PLAIN)
app.add_typer(data_app, name="data")


@app.command(add_help_option=False)
def train(
    ctx: typer.Context,
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="METHOD|PRESET|KEY=VALUE", help="A method or a preset, then settings.", show_default=False
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Settings from a YAML file, such as runs/a/config.yaml.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this folder.")] = None,
    tiny: Annotated[
        bool, typer.Option("--tiny", help="A preset in seconds: shows the course, not the numbers.")
    ] = False,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print the resolved settings and stop.")] = False,
    json_: JSON = False,
    debug: DEBUG = False,
    help_: HELP = False,
) -> None:
    """Train a method or a preset on data.

    openjepa train lejepa data=photos/ out=runs/a optim.lr=3e-4
    """
    name, overrides = leading_name(what or [])
    if help_:
        from openjepa.app.fields import train_help

        return stop_with_help(ctx, train_help(name))
    if print_config:
        from openjepa.app.settings import resolve

        resolved = resolve(name, config=config, overrides=overrides, tiny=tiny, resume=resume)
        return typer.echo(resolved.to_yaml(), nl=False)
    from openjepa.app import verbs

    run = verbs.train(name, config=config, resume=resume, tiny=tiny, overrides=overrides)
    return show("train", run.summary(), json_)


@app.command(add_help_option=False)
def probe(
    ctx: typer.Context,
    run: RUN = None,
    settings: SETTINGS = None,
    json_: JSON = False,
    debug: DEBUG = False,
    help_: HELP = False,
) -> None:
    """Measure frozen features on labels.

    openjepa probe runs/a data=labelled/ kinds=[linear,knn]
    """
    asked(ctx, "probe", run, settings, json_, help_)


@app.command(add_help_option=False)
def embed(
    ctx: typer.Context,
    run: RUN = None,
    settings: SETTINGS = None,
    json_: JSON = False,
    debug: DEBUG = False,
    help_: HELP = False,
) -> None:
    """Write the features of pictures.

    openjepa embed runs/a data=photos/ out=z.parquet
    """
    asked(ctx, "embed", run, settings, json_, help_)


@app.command(add_help_option=False)
def look(
    ctx: typer.Context,
    run: RUN = None,
    settings: SETTINGS = None,
    json_: JSON = False,
    debug: DEBUG = False,
    help_: HELP = False,
) -> None:
    """Verdict and report of a run.

    openjepa look runs/a
    """
    asked(ctx, "look", run, settings, json_, help_)


@app.command(add_help_option=False)
def compare(
    ctx: typer.Context,
    items: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN|pixels|init|KEY=VALUE", help="What to compare, then settings.", show_default=False),
    ] = None,
    json_: JSON = False,
    debug: DEBUG = False,
    help_: HELP = False,
) -> None:
    """Runs, raw pixels, no training: one table.

    openjepa compare runs/a runs/b pixels init data=labelled/
    """
    names = [item for item in items or [] if "=" not in item]
    settings = [item for item in items or [] if "=" in item]
    asked(ctx, "compare", names or None, settings, json_, help_)


@app.command(add_help_option=False)
def export(
    ctx: typer.Context,
    run: RUN = None,
    settings: SETTINGS = None,
    to: Annotated[str | None, typer.Option(help="Folder, or a file that ends in .onnx.")] = None,
    format_: Annotated[str | None, typer.Option("--format", help="openjepa, hf or onnx.")] = None,
    json_: JSON = False,
    debug: DEBUG = False,
    help_: HELP = False,
) -> None:
    """Weights for other programs.

    openjepa export runs/a --to hf/
    """
    given = [f"{key}={value}" for key, value in (("to", to), ("format", format_)) if value is not None]
    asked(ctx, "export", run, [*(settings or []), *given], json_, help_)


@app.command(add_help_option=False)
def demo(
    ctx: typer.Context,
    settings: SETTINGS = None,
    tiny: TINY = False,
    json_: JSON = False,
    debug: DEBUG = False,
    help_: HELP = False,
) -> None:
    """The whole of it, in two minutes.

    openjepa demo out=runs/demo
    """
    given = [*(settings or []), *(["tiny=true"] if tiny else [])]
    asked(ctx, "demo", (), given, json_, help_)


@app.command(add_help_option=False)
def collect(
    ctx: typer.Context,
    world: Annotated[
        str | None, typer.Argument(metavar="WORLD", help="A world: openjepa list worlds.", show_default=False)
    ] = None,
    settings: SETTINGS = None,
    json_: JSON = False,
    debug: DEBUG = False,
    help_: HELP = False,
) -> None:
    """Episodes of a world.

    openjepa collect two-rooms episodes=500 out=eps/ policy=random world.pixels=33
    """
    if not help_ and world is None:
        raise ValueError("collect must be given a world, got none. See openjepa list worlds.")
    asked(ctx, "collect", world, settings, json_, help_)


@app.command(add_help_option=False)
def plan(
    ctx: typer.Context,
    run: RUN = None,
    settings: SETTINGS = None,
    world: Annotated[str | None, typer.Option(help="By default the one it was trained in.")] = None,
    json_: JSON = False,
    debug: DEBUG = False,
    help_: HELP = False,
) -> None:
    """Reach goals with a world model.

    openjepa plan runs/w --world two-rooms episodes=200
    """
    given = [*(settings or []), *([f"world={world}"] if world else [])]
    asked(ctx, "plan", run, given, json_, help_)


@data_app.command("check")
def data_check(
    path: Annotated[str, typer.Argument(help="A folder, a file or the name of a source.", show_default=False)],
    settings: SETTINGS = None,
    json_: JSON = False,
    debug: DEBUG = False,
) -> None:
    """Say beforehand what a run would meet.

    openjepa data check photos/
    """
    from openjepa.app import verbs

    show("data check", verbs.data_check(path, overrides=settings or ()), json_)


@app.command("list")
def list_(
    kind: Annotated[str | None, typer.Argument(metavar="[KIND]", help="methods, presets, encoders, probes ...")] = None,
    json_: JSON = False,
    debug: DEBUG = False,
) -> None:
    """What there is to choose from.

    openjepa list methods
    """
    from openjepa.app.names import list_names

    show("list", list_names(kind), json_)


@app.command(add_help_option=False)
def info(
    ctx: typer.Context,
    path: Annotated[
        Path | None, typer.Argument(metavar="[RUN|CHECKPOINT]", help="Without one: this machine, for bug reports.")
    ] = None,
    settings: SETTINGS = None,
    json_: JSON = False,
    debug: DEBUG = False,
    help_: HELP = False,
) -> None:
    """What a checkpoint or this machine is.

    openjepa info vitl.pt family=V-JEPA
    """
    asked(ctx, "info", path if path is not None else (), settings, json_, help_)


def asked(
    ctx: typer.Context, verb: str, subject: Any, settings: Sequence[str] | None, json_: bool, help_: bool
) -> None:
    """Run a verb whose settings are a request; `subject` is a run, several, or () for none."""
    if help_:
        from openjepa.app.fields import verb_help

        return stop_with_help(ctx, verb_help(verb))
    if subject is None:
        raise ValueError(f"{verb} must be given a run folder, got none. See openjepa {verb} --help.")
    from openjepa.app.answers import answer

    return show(verb, answer(verb, subject, settings or ()), json_)


def leading_name(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """A first word without "=" is the name of a method or preset; everything else is a setting.

    >>> leading_name(["lejepa", "seed=1"]), leading_name(["seed=1"])
    (('lejepa', ['seed=1']), (None, ['seed=1']))
    """
    if words and "=" not in words[0]:
        return words[0], list(words[1:])
    return None, list(words)


def stop_with_help(ctx: typer.Context, settings: str) -> None:
    typer.echo(ctx.get_help())
    typer.echo("\n" + settings)


def show(verb: str, result: Any, as_json: bool) -> None:
    """What a verb returned: as JSON, or as lines for a person. Under torchrun, once."""
    if os.environ.get("RANK", "0") != "0":
        return
    typer.echo(json.dumps(result, indent=2, allow_nan=False) if as_json else text.RENDER.get(verb, text.pairs)(result))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and leave with its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(guarded(lambda: app(words, prog_name="openjepa", standalone_mode=False), debug="--debug" in words))
