# Completion of lotr-tui in fish. Once:  lotr-tui completion fish > ~/.config/fish/completions/lotr-tui.fish
function __lotr_tui_complete
    set -l program (commandline -opc)[1]
    set -l current (commandline -ct)
    set -l option (string match -r '^--[^=]+=' -- $current)
    set -l lines (env COLUMNS=999 _LOTR_TUI_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=get-args \
        _TYPER_COMPLETE_ARGS=(commandline -cp | string collect) $program 2>/dev/null </dev/null)
    if test -n "$lines"
        string join -- \n "$option"$lines
    else
        set -l prefix (string match -r '^(?:--[^=]+=)?(?:(?:hf|gguf):)?' -- $current)
        string join -- \n "$prefix"(__fish_complete_path (string sub -s (math (string length -- "$prefix") + 1) -- $current))
    end
end

complete -c lotr-tui -f -k -a '(__lotr_tui_complete)'
