# Completion of lotr-tui in fish.
# Once:  lotr-tui completion fish > ~/.config/fish/completions/lotr-tui.fish

function __lotr_tui_complete
    set -l program lotr-tui
    type -q lotr-tui; or set program @PROGRAM@
    set -l before (commandline -opc)
    set -l current (commandline -ct)
    set -l candidates (command $program __complete fish (math (count $before) - 1) $before[2..] "$current" 2>/dev/null </dev/null)
    if test $status -eq 3
        # The word has a variable in it, which only fish can expand.
        __fish_complete_path "$current"
    else
        string join -- \n $candidates
    end
end

complete -c lotr-tui -f -k -a '(__lotr_tui_complete)'
