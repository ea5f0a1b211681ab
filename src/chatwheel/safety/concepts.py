"""The words that the rules are made of, by what they mean, in English and Chinese. Words that hurt are written out here
because that is how they are found.

Terms stand between `|`. NOTHING takes words away that only look alike: "kill a process", 杀毒软件.
"""

from __future__ import annotations

CONCEPTS: dict[str, str] = {
    # Who is spoken of.
    "I": "i|i'm|im|i'll|ill|i've|i'd|we|we'll|we're|我|我们|俺|老子|咱们",
    "YOU": "you|u|ya|you're|youre|you'll|ur|your|yourself|你|你们|您|妳|你这|你这个|你这种|你个|你就是个|你真是个",
    "OTHER": (
        "him|her|them|everyone|everybody|people|someone|somebody|my wife|my husband|my boss|my neighbor|"
        "my neighbour|my teacher|my classmates|my parents|my mother|my father|my brother|my sister|my ex|"
        "my girlfriend|my boyfriend|the teacher|the president|the police|a man|a woman|a person|a child|children|"
        "kids|students|teachers|cops|family|他|她|他们|她们|所有人|别人|大家|老板|邻居|老师|同学|前妻|前女友|"
        "前男友|老婆|老公|全家|路人|孩子|学生|警察|一个人"
    ),
    "ALL": (
        "all|every|all the|all of the|all these|all those|those|these|the|所有|所有的|全部|全都|这些|那些|这帮|"
        "那帮|这群|那群|把"
    ),
    "GROUP": (
        "jews|jew|jewish people|muslims|muslim|muzzies|christians|hindus|blacks|black people|africans|asians|"
        "chinese people|chinese|mexicans|latinos|arabs|indians|immigrants|migrants|refugees|foreigners|gays|"
        "gay people|homosexuals|lesbians|trans people|transgender people|transsexuals|women|disabled people|"
        "the disabled|gypsies|roma|white people|whites|犹太人|穆斯林|回民|回族|黑人|白人|亚裔|印度人|日本人|"
        "韩国人|越南人|非洲人|移民|难民|外国人|同性恋|同性恋者|跨性别|女人|女性|男人|残疾人|外地人|河南人|东北人|"
        "上海人|新疆人|藏人|少数民族|农民工|乡下人"
    ),
    "SLUR": (
        "nigger|niggers|nigga|niggas|kike|kikes|faggot|faggots|fag|fags|spic|spics|chink|chinks|gook|gooks|"
        "raghead|ragheads|towelhead|towelheads|wetback|wetbacks|sandnigger|tranny|trannies|beaner|beaners|paki|"
        "pakis|coons|dyke|dykes|黑鬼|死基佬|死gay|死同性恋|支那猪|支那人|小日本鬼子|死娘炮|棒子国|阿三烂人|"
        "绿绿的蛆|死黑人|尼哥"
    ),
    "MINOR": (
        "child|children|kid|kids|underage|minor|minors|little girl|little girls|little boy|little boys|"
        "young girl|young boy|schoolgirl|schoolgirls|schoolboy|toddler|toddlers|preteen|preteens|infant|loli|"
        "lolita|shota|twelve year old|thirteen year old|fourteen year old|13 year old|12 year old|11 year old|"
        "10 year old|14 year old|15 year old|9 year old|8 year old|13 yo|14 yo|幼女|幼童|幼齿|未成年|未成年人|"
        "小女孩|小男孩|女童|男童|儿童|萝莉|正太|小学生|初中女生|中学女生|初中生|十二岁|十三岁|十岁|12岁|13岁|"
        "14岁|10岁|11岁|teen|teens|teenage|teenager|daughter|stepdaughter|little sister|little brother|my son|"
        "middle schooler|16 year old|17 year old|sixteen year old|seventeen year old|高中女生|女儿|妹妹|少女"
    ),
    # What is done to people.
    "KILL": (
        "kill|kills|killing|murder|murders|murdering|stab|stabbing|strangle|strangling|behead|beheading|"
        "slaughter|slaughtering|massacre|assassinate|shoot|shooting|gun down|execute|hang|lynch|lynching|poison|"
        "drown|beat to death|stab to death|burn alive|杀|杀死|杀了|杀光|杀掉|杀害|杀人|弄死|打死|砍死|捅死|掐死|"
        "宰了|宰掉|干掉|枪毙|勒死|毒死|炸死|烧死|淹死|整死|弄死你"
    ),
    "HURT": (
        "beat|beating|hurt|punch|attack|torture|torturing|smash|slash|rape|raping|cripple|break your legs|"
        "break your neck|break your bones|beat up|rip apart|揍|砍|捅|殴打|折磨|打断腿|打断你的腿|打爆|强奸|轮奸|"
        "弄残|打残|泼硫酸"
    ),
    "DIE": (
        "die|be killed|be shot|be hanged|be exterminated|be wiped out|be gassed|be murdered|be lynched|"
        "be deported|drop dead|去死|该死|死光|死绝|都该死|应该死|灭绝|死了算了|不得好死"
    ),
    "GO": (
        "should|must|need to|ought to|deserve to|deserves to|have to|gonna|should all|should just|应该|应当|必须|"
        "都|都应该|就该|都得|就应该|该|要|都要"
    ),
    "WILL": (
        "will|'ll|i'll|we'll|ll|going to|gonna|want to|wanna|would love to|am going to|m going to|plan to|"
        "'m going to|swear|swear to|要|会|想|想要|打算|准备|一定|迟早|恨不得|真想|非"
    ),
    "EXTERMINATE": (
        "exterminate|exterminating|eradicate|gas|genocide|wipe out|get rid of|purge|deport|burn|ethnic cleansing|"
        "种族清洗|灭绝|清除|消灭|赶尽杀绝|赶出|驱逐|斩草除根|杀光"
    ),
    "THREAT": (
        "i know where you live|i know where you work|you are dead|you're dead|you're a dead man|watch your back|"
        "sleep with one eye open|you will regret this|you'll pay with your life|your days are numbered|"
        "i will find you|i'll find you|弄死你|杀了你|打死你|砍死你|捅死你|杀你全家|弄死你全家|我知道你住哪|"
        "我知道你家住哪|让你死无全尸|要你的命|要你狗命|小心你的狗命|你等着收尸"
    ),
    # What people are called.
    "INSULT": (
        "idiot|idiots|moron|morons|imbecile|retard|retards|retarded|loser|losers|bitch|bitches|asshole|assholes|"
        "cunt|cunts|whore|whores|slut|sluts|hoe|hoes|dumbass|dumbasses|dipshit|shithead|jackass|motherfucker|"
        "motherfuckers|bastard|bastards|prick|worthless|pathetic|disgusting|piece of shit|piece of garbage|"
        "piece of trash|scumbag|scumbags|waste of space|waste of oxygen|fat pig|pig|stupid|ugly|dumb|fucktard|"
        "douchebag|twat|wanker|傻逼|傻b|煞笔|沙比|傻叉|白痴|蠢货|蠢猪|废物|贱人|贱货|婊子|脑残|智障|弱智|混蛋|"
        "王八蛋|畜生|狗东西|杂种|人渣|垃圾|败类|狗娘养的|臭婊子|死胖子|丑八怪|恶心|没用的东西|不要脸|下贱|二货|"
        "猪狗不如|狗杂种|龟孙子|蠢蛋|神经病|饭桶|窝囊废"
    ),
    "ABUSE": (
        "fuck you|fuck u|screw you|go fuck yourself|fuck yourself|go to hell|drop dead|shut the fuck up|stfu|kys|"
        "kill yourself|go kill yourself|go die|please die|just die|hang yourself|nobody likes you|"
        "no one likes you|everyone hates you|nobody loves you|you should die|you should kill yourself|"
        "the world would be better without you|suck my dick|eat shit|fuck off|操你妈|草你妈|日你妈|肏你妈|操你|"
        "你妈的|你妈逼|去你妈的|他妈的傻逼|滚蛋|滚犊子|给我滚|去死吧|你去死|你怎么不去死|怎么不去死|去自杀吧|"
        "没人喜欢你|大家都讨厌你|没人要你|nmsl|cnm|你妈死了|你全家死光|吃屎去|干你娘|塞你母"
    ),
    "DEHUMAN": (
        "vermin|scum|animals|subhuman|subhumans|parasites|parasite|cockroaches|rats|filth|filthy|disease|"
        "inferior|savages|monkeys|apes|plague|trash|garbage|degenerates|disgusting|not human|not people|"
        "criminals|rapists|terrorists|evil|lazy|低等|劣等|劣等民族|寄生虫|蟑螂|畜生|人渣|垃圾|病毒|牲口|蛆|"
        "野蛮人|猴子|下等人|不是人|都是小偷|都是骗子|素质低|恶心|毒瘤|杂种|败类|贱"
    ),
    "HATE": "hate|hates|despise|can't stand|cant stand|fuck|detest|讨厌|恨|最恨|鄙视|受够了|滚出|滚回|滚",
    "LEAVE": (
        "go back to|get out of our|get out of my|don't belong|do not belong|dont belong|go home|滚出中国|滚回去|"
        "滚回老家|滚出去|滚出我们"
    ),
    # How things are done.
    "HOW": (
        "how to|how do i|how can i|how do you|how would i|how could i|how does one|ways to|way to|best way to|"
        "steps to|instructions for|instructions to|instructions on|guide to|tutorial on|teach me|teach me to|"
        "tell me how to|show me how to|explain how to|recipe for|help me|where can i|where do i|where to|"
        "give me instructions|step by step|如何|怎么|怎样|怎么才能|怎样才能|如何才能|教我|方法|步骤|教程|帮我|"
        "哪里可以|哪里能|去哪里|哪儿能|在哪|告诉我|怎么样"
    ),
    "MAKE": (
        "make|making|build|building|construct|create|assemble|synthesize|synthesise|cook|cooking|produce|prepare|"
        "manufacture|3d print|grow|extract|制作|制造|做|造|自制|合成|组装|提炼|配制|做出"
    ),
    "GET": "buy|get|obtain|purchase|order|sell|selling|score|smuggle|deal|买|买到|购买|弄到|搞到|卖|出售|贩卖|走私",
    "DRUG": (
        "meth|methamphetamine|crystal meth|cocaine|crack cocaine|heroin|fentanyl|mdma|lsd|ecstasy|ghb|ketamine|"
        "冰毒|海洛因|可卡因|摇头丸|毒品|大麻|k粉|芬太尼|麻古|迷药|听话水|迷奸药"
    ),
    "CRIME": (
        "shoplift|launder money|money laundering|forge|counterfeit|counterfeit money|fake id|fake passport|"
        "fake prescription|steal a car|steal cars|steal a credit card|steal credit card|steal credit cards|"
        "steal someone's identity|steal passwords|steal money|steal from|hotwire a car|pick a lock and break|"
        "break into a house|break into someone's|break into a car|hack into|hack someone's|hack someone|"
        "hack my ex's|hack a bank|hack an account|write ransomware|make ransomware|create ransomware|"
        "write malware|create malware|create a computer virus|phishing email|phishing site|scam people|"
        "scam old people|scam elderly people|commit fraud|insurance fraud|credit card fraud|evade taxes|"
        "blackmail|blackmail someone|bribe|dispose of a body|hide a body|get away with murder|stolen credit card|"
        "stolen credit cards|traffic people|human trafficking|洗钱|洗黑钱|伪造|假钞|假币|假证|假身份证|假护照|"
        "办假证|盗刷|盗取|盗号|偷车|偷东西|偷钱|入室盗窃|撬锁入室|黑进|入侵别人|入侵他人|勒索病毒|木马病毒盗|"
        "钓鱼网站|诈骗|骗老人|骗钱|骗保|逃税|偷税|敲诈|敲诈勒索|行贿|毁尸灭迹|处理尸体|藏尸|拐卖|人口贩卖|"
        "信用卡套现"
    ),
    "WEAPON": (
        "bomb|bombs|pipe bomb|pipe bombs|nail bomb|car bomb|dirty bomb|explosive|explosives|grenade|grenades|"
        "molotov|molotov cocktail|ied|ricin|sarin|nerve gas|nerve agent|anthrax|mustard gas|chemical weapon|"
        "chemical weapons|biological weapon|bioweapon|ghost gun|ghost guns|untraceable gun|silencer for a gun|"
        "gun silencer|napalm|thermite bomb|suicide vest|poison gas|炸弹|土炸弹|炸药|手雷|手榴弹|燃烧瓶|燃烧弹|"
        "土枪|枪支|手枪|子弹|火药枪|蓖麻毒素|沙林|毒气|神经毒气|炭疽|生化武器|化学武器|自杀背心|雷管"
    ),
    "GUN": "gun|guns|rifle|pistol|ar 15|assault rifle|firearm|枪|手枪|步枪",
    "ILLEGALLY": (
        "illegally|without a license|without a background check|without background check|black market|"
        "on the dark web|dark web|darknet|without getting caught|without being caught|不被发现|不被抓|黑市|暗网|"
        "非法|不被警察"
    ),
    # Harm to oneself.
    "SELFKILL": (
        "kill myself|killing myself|end my life|ending my life|take my own life|taking my own life|"
        "commit suicide|end it all|hang myself|shoot myself|drown myself|slit my wrists|slitting my wrists|"
        "jump off a bridge|suicide|suicidal|overdose|自杀|轻生|割腕|上吊|跳楼|结束生命|结束自己的生命|"
        "结束我的生命|了结自己|吞安眠药|烧炭"
    ),
    "SELFHURT": (
        "cut myself|cutting myself|hurt myself|hurting myself|burn myself|harm myself|harming myself|"
        "starve myself|self harm|selfharm|self-harm|self injury|purging|pro ana|thinspo|伤害自己|自残|自伤|"
        "割自己|划自己|催吐减肥"
    ),
    "TIRED": (
        "want to die|wanna die|wish i was dead|wish i were dead|wish i were never born|don't want to live|"
        "dont want to live|do not want to live|no reason to live|better off dead|don't want to be alive|"
        "can't go on living|不想活|不想活了|想死|想去死|活不下去|活着没意思|活着没有意义|活够了|死了算了|"
        "不如死了"
    ),
    "PAINLESS": (
        "painless|painlessly|least painful|without pain|quickest|lethal dose|how many pills|"
        "how many sleeping pills|无痛|不痛苦|致死量|多少安眠药|多少片安眠药|吃多少安眠药"
    ),
    "TODIE": "die|to die|overdose|kill me|will kill me|死|死去|死亡|会死|能死|致死",
    # Sex.
    "SEX": (
        "blowjob|blow job|handjob|cumshot|cum|cumming|creampie|gangbang|deepthroat|dick|cock|pussy|tits|titties|"
        "clit|horny|masturbate|masturbates|masturbating|orgasm|anal sex|oral sex|porn|porno|pornography|hentai|"
        "nudes|naked|erotic|erotica|milf|dildo|fuck me|fucks me|fuck her|fucked her|fucking her|fuck him|"
        "fucked me|sex with|have sex|having sex|sexting|moaned|nipples|做爱|口交|肛交|性交|啪啪啪|自慰|手淫|高潮|"
        "阴茎|阴道|鸡巴|肉棒|小穴|骚逼|淫荡|淫水|射精|内射|裸照|裸聊|黄片|色情|色情片|av女优|约炮|乳交|颜射|情色|"
        "性爱|性奴|揉她的胸|床戏|裸体"
    ),
    "LEWD": (
        "sex|sexy|fuck|fucking|fucked|fucks|penis|vagina|breasts|boobs|erection|thrust|thrusts|thrusting|aroused|"
        "arousal|lust|panties|moan|moaning|moans|stripped|undressed|stroking|licked|licking|sucked|sucking|"
        "spread her legs|between her legs|between his legs|incest|bdsm|bondage|threesome|orgy|escort|hooker|"
        "kinky|seductive|pornstar|胸部|乳房|乳头|屁股|内裤|胸罩|呻吟|抽插|勃起|舔|脱衣|诱惑|骚货|援交|卖淫|嫖娼|"
        "一夜情|乱伦|娇喘"
    ),
    "STRONGSEX": (
        "blowjob|blow job|handjob|cumshot|creampie|gangbang|deepthroat|suck my cock|suck his cock|"
        "sucking his cock|my cock|his cock|wet pussy|her pussy|my pussy|tight pussy|hard cock|fuck me harder|"
        "cum inside|cum in my|her clit|send nudes|sexting|xxx video|write porn|write erotica|make me cum|"
        "so horny|i'm horny|anal sex|口交|肛交|内射|颜射|乳交|鸡巴|肉棒|小穴|骚逼|淫水|裸聊|约炮|黄片|色情片|"
        "看黄片|做爱视频|啪啪啪|性奴|情色小说|黄色小说|色情小说|发裸照"
    ),
    "CHILDPORN": (
        "child porn|child pornography|kiddie porn|cp video|loli porn|loli hentai|underage porn|underage sex|"
        "jailbait|preteen sex|儿童色情|幼女视频|幼女色情|萝莉色情|未成年色情|恋童"
    ),
    "ABUSED": (
        "molest|molesting|rape|raping|undress|undressed|seduce|grope|fuck|sexually|猥亵|强奸|诱奸|性侵|迷奸|脱光|"
        "摸她|发生关系|上床"
    ),
    # Pictures of harm.
    "GORE": (
        "severed head|severed limbs|decapitated|decapitating|disembowel|disemboweled|disembowelled|dismember|"
        "dismembered|dismembering|entrails|intestines spilled|guts spilled|guts spilling|guts spill|"
        "brains splattered|brains spilled|brain matter|skull cracked open|skull split|blood gushed|blood gushing|"
        "blood spurted|blood spurting|blood sprayed|blood splattered|pool of his own blood|pool of her own blood|"
        "mangled corpse|mutilated|mutilated body|mutilated corpse|gouged out|flayed|skinned alive|ripped out his|"
        "ripped out her|tore out his|slit his throat|slit her throat|throat was slit|rotting corpse|eyeballs|"
        "血肉模糊|脑浆|脑浆迸裂|肠子流|开膛破肚|碎尸|碎尸万段|肢解|分尸|斩首|砍下头|头颅被砍|血流成河|鲜血喷|"
        "血浆四溅|剥皮|挖出眼珠|挖出内脏|内脏流|断肢|尸块|凌迟"
    ),
    "MASSACRE": (
        "shoot up|shoot up the school|shoot up my school|shoot up a school|school shooting|mass shooting|"
        "blow up the building|blow up the school|blow up a school|bomb the school|run over people|"
        "drive into a crowd|kill as many people as|terrorist attack|屠杀|大屠杀|血洗|无差别杀人|持刀砍人|炸学校|"
        "炸掉学校|开车撞人群|恐怖袭击|报复社会"
    ),
    # What turns the meaning.
    "NOT": (
        "not|don't|dont|do not|never|won't|didn't|doesn't|wouldn't|can't|cannot|isn't|aren't|no|without|不|不要|"
        "别|没|没有|不会|不能|不是|并非|从不|绝不|不应该|不该|禁止|请勿|勿"
    ),
    "CARE": (
        "prevent|prevents|preventing|prevention|stop|report|reporting|avoid|hotline|helpline|support|awareness|"
        "protect|protecting|protection|recover|recovery|treat|treatment|detect|detecting|law|laws|illegal|"
        "research|statistics|history|victims|victim|survivor|survivors|survived|warning signs|against|combat|"
        "fight against|friend|loved one|someone who|fought|defend|预防|防止|防范|阻止|举报|避免|热线|帮助|干预|"
        "保护|治疗|识别|法律|刑法|犯罪|研究|统计|历史|受害者|受害人|幸存者|打击|反对|条例|规定|案件|案|罪|严禁|"
        "被判|朋友|警惕|处罚|法院"
    ),
    "NOTHING": (
        "kill the process|kill a process|kill process|kill the job|kill the server|kill the container|kill time|"
        "killing time|kill two birds|kill the lights|kill switch|kill the engine|kill the mood|kill the weeds|"
        "kill weeds|kill bacteria|kill germs|kill the bacteria|kill child processes|kill all child processes|"
        "kill the children|kill them all with signal|kill it with|killing it|my feet are killing me|killing me|"
        "shoot a photo|shoot photos|shoot a video|shoot a movie|shoot a film|shoot the movie|shoot a portrait|"
        "shoot portraits|shoot some|photo shoot|shoot me an email|shoot me a message|shoot hoops|shooting star|"
        "shooting stars|shoot for the stars|shoot you an email|shoot you a message|shoot you a mail|hang out|"
        "hang on|hang up|hang in there|hang your|hang the picture|beat around|beat the eggs|beat the egg|"
        "beat you at|beat them at|beat him at|beat her at|beat them to|beat you to|to die for|die laughing|"
        "die cast|die hard|dies out|roll the die|roll a die|dead line|suicide squad|bath bomb|bath bombs|"
        "photo bomb|bomb cyclone|seed bomb|glue gun|nail gun|heat gun|spray gun|gun control|water gun|"
        "attack on titan|heart attack|panic attack|attack surface|execute the|execute a|execute this|"
        "execute them|hot dog|cock your head|hancock|moby dick|dick cheney|philip k dick|pussy cat|great tits|"
        "blue tits|naked eye|naked mole rat|crack the code|slash command|gas station|gas prices|gas the car|"
        "drown out|poison ivy|burn calories|beat the heat|beat saber|order of|you stupid computer|guinea pig|"
        "pig latin|ghost pepper|杀毒|杀毒软件|杀虫|杀虫剂|杀菌|杀死进程|杀掉进程|杀进程|杀青|杀价|杀猪|杀鱼|杀鸡|"
        "杀鸡儆猴|秒杀|抹杀|扼杀|自相残杀|绝杀|杀时间|消杀|必杀技|杀手锏|狼人杀|三国杀|剧本杀|杀出重围|杀伤力|"
        "打死结|砍价|砍树|砍柴|砍单|拍摄|笑死|累死|饿死|热死|冷死|急死|气死|吓死|困死|无聊死|爱死|死机|死循环|"
        "死锁|死记硬背|死心|死板|死角|想死你|想死我|死心塌地|垃圾分类|垃圾桶|垃圾回收|垃圾邮件|垃圾食品|垃圾处理|"
        "垃圾袋|垃圾箱|垃圾短信|生活垃圾|倒垃圾|扔垃圾|病毒学|病毒性|计算机病毒|电脑病毒|做法|做菜|做作业|做事|"
        "炸鸡|炸药包|炸弹人|枪手|水枪|焊枪|枪花|加油枪|热熔胶枪|玩具枪|手枪腿|子弹短信|子弹头|子弹列车|废物利用|"
        "高潮迭起|故事高潮|剧情高潮|小说高潮|音乐高潮|大麻烦|上吊灯|跳楼机|跳楼价|跳楼大甩卖|自杀式|男人婆|会议|"
        "会员|社会|机会|协会|委员会|会计|音乐会|想象|想法|理想|思想|要求|重要|需要|主要|要素|首都|成都|都市|古都|"
        "该公司|该国|该地|本该|滚动|滚轮|滚筒|翻滚|滚烫|摇滚|滚瓜烂熟|非常|非洲|除非|一定程度|一定的|恶心呕吐|"
        "恶心想吐|头晕恶心|神经病学|贱卖|sex education|sex ed|same sex|opposite sex|sex offender|sex offenders|"
        "sex ratio|sex differences|safe sex|sex hormone|sex hormones|sex chromosome|sex chromosomes|"
        "breast cancer|breast feeding|卖淫罪|嫖娼罪|乳房检查|胸部检查"
    ),
}
