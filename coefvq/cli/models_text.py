"""What ``coefvq models show`` and ``plan`` print for people; scripts take ``--json``."""

from __future__ import annotations

from typing import Any


def show_text(facts: dict[str, Any]) -> None:
    """Print ``models.facts.preset_facts``: a row per part, then sums, licence and memory."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("part", "parameters", "download", "on disk"):
        table.add_column(name, no_wrap=True, justify="left" if name == "part" else "right")
    table.add_column("weights and licence", overflow="fold")
    for row in facts["parts"]:
        origin = row["weights"] if row["weights"] == "random" else f"{row['weights']} ({row['licence']})"
        sizes = [_megabytes(row[key]) for key in ("megabytes", "disk_megabytes")]
        table.add_row(row["part"], _millions(row["parameters"]), *sizes, origin)
    memory = facts["memory_gib"]
    console = Console(highlight=False, soft_wrap=False)
    console.print(f"[bold]{facts['name']}[/]: {facts['summary']}\n")
    console.print(table)
    disk, download = _megabytes(facts["disk_megabytes"]), _megabytes(facts["download_megabytes"])
    fetched = f"about {disk} in all, {download} to download; shared files count once"
    console.print(f"\ndisk     {fetched if facts['disk_megabytes'] else 'none: nothing is fetched'}")
    console.print(f"licence  {facts['licence']}")
    console.print(f"memory   MLLM weights: {_gib(memory['score_bf16'])} in bf16, {_gib(memory['score_fp32'])} in fp32")
    console.print(f"         to fine-tune, LoRA rank 32, one GPU, one video, bf16: {_gib(memory['train'])}, estimate")
    for kind, gib in memory["score_bases_fp32"].items():
        console.print(f"         base '{kind}', weights: {_gib(gib)} in fp32")
    console.print(f"\nMore: coefvq models plan --preset {facts['name']} --gpus 8 --memory 80GiB")


def plan_text(result: dict[str, Any], gib: float) -> str:
    """``models.planning.Plan.as_dict`` as lines."""
    memory, flops = result["memory"], result["flops_per_video"]
    total, ranks = result["total_parameters"], result["gpus"]
    lines = [f"{result['preset']}: the MLLM, counted on the meta device", "", "parameters"]
    lines += [_line(part, _millions(count)) for part, count in result["parameters"].items() if count]
    lines.append(_line("total", _millions(total)))
    lines.append(_line("of them trained", f"{_millions(result['trainable'])}   ({result['trainable'] / total:.2%})"))
    lines += ["", "parameters of a first stage, by architecture"]
    lines += [_line(kind, _millions(count)) for kind, count in result["base_parameters"].items()]
    seen, read = result["visual_tokens"], result["text_tokens"]
    lines += ["", "tokens per video", _line("visual", f"{seen:,}"), _line("text, at most", f"{read:,}")]
    lines.append(_line("end or template", f"{result['template_tokens']:,}"))
    lines += ["", "FLOPs per video, one forward pass"]
    lines += [_line(part, f"{count / 1e12:,.3f} T") for part, count in flops.items()]
    lines.append(_line("total", f"{result['forward_flops_per_video'] / 1e12:,.3f} T"))
    lines.append(_line("per million videos", f"{result['forward_flops_per_million_videos'] / 1e18:,.3f} E"))
    how = "ZeRO-2, bf16" if ranks > 1 else "bf16"
    lines += ["", f"memory per rank: {ranks} rank(s), {how}, {result['batch_size']} video(s) per rank"]
    kept = "checkpointing" if result["activation_checkpointing"] else "no checkpointing"
    words = {"optimizer": "optimizer states", "activations": f"activations, {kept}"}
    parts = {words.get(name, name.replace("_", " ")): value for name, value in memory.items() if name != "fits"}
    lines += [_line(name, f"{value:,.2f} GiB") for name, value in parts.items()]
    verdict = "fits" if memory["fits"] else "does NOT fit"
    lines += ["", f"{verdict} in {gib:,.1f} GiB; a tenth of it is left for CUDA and NCCL themselves"]
    if not memory["fits"]:
        advice = "" if result["activation_checkpointing"] else "--checkpointing, "
        lines.append(f"try {advice}fewer frames (--frames), a smaller --batch-size or a smaller preset")
    if result["not_pinned"]:
        roles = ", ".join(result["not_pinned"])
        lines.append(f"not pinned: {roles}; give a commit in a preset of your own (extends: {result['preset']})")
    return "\n".join(lines)


def _line(name: str, value: str) -> str:
    figure, _, note = value.partition("   ")
    return f"  {name:22}{figure:>14}" + (f"   {note}" if note else "")


def _millions(count: int) -> str:
    return f"{count / 1e6:,.2f} M"


def _megabytes(size: int) -> str:
    if size == 0:
        return "-"
    return f"{size / 1000:,.1f} GB" if size >= 1000 else f"{size} MB"


def _gib(size: float) -> str:
    return f"{size:,.1f} GiB" if size >= 1 else f"{max(size * 1024, 1):,.0f} MiB"
