rule check:
    input:
        images=images_of,
        masks=masks_of,
    output:
        "results/check/{dataset}.json",
    log:
        text="logs/steps/check/{dataset}.log",
        events="logs/steps/check/{dataset}.jsonl",
    benchmark:
        "logs/steps/check/{dataset}.tsv"
    container:
        IMAGE.url
    threads: 1
    resources:
        mem_mb=4000,
        runtime=120,
        gpu=0,
    params:
        options=lambda w: commands.check(dataset_of(w), PROJECT.models),
        image=IMAGE.digest,
        stamp=stamp_of,
    message:
        "check {wildcards.dataset}"
    shell:
        "python -m biom3d.check {params.options} --out {output}"
        " --events {log.events} 2>&1 | tee -i {log.text}"
